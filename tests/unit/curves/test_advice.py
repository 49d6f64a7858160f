"""Advice on a learning rate knows the optimizer of the run: one table for defaults and advice."""

from __future__ import annotations

import pytest
from tests.unit.curves.curves import made

from lehr.curves import advice
from lehr.usual import usual_of


@pytest.mark.parametrize("name", ["adadelta", "Adagrad", "timm/lion", "muon", "sgd"])
def test_a_rate_far_too_low_is_raised_to_the_usual_one_of_its_optimizer(name: str) -> None:
    usual = usual_of(name)
    assert usual
    curves = made(2.3, job={"optimizer": {"name": name, "lr": usual.rate / 1000}})
    assert advice.raise_rate(curves, 10_000.0) == {"optimizer.lr": pytest.approx(usual.rate)}
    assert advice.usual_rate(curves) == {"optimizer.lr": usual.rate}
    pretrained = made(2.3, job={"optimizer": {"name": name, "lr": 30.0}, "model": {"weights": "run:other"}})
    assert advice.lower_rate(pretrained)["optimizer.lr"] == pytest.approx(usual.finetuning_with({}))


def test_advice_never_repeats_the_rate_that_a_run_had() -> None:
    curves = made(2.3, job={"optimizer": {"name": "adam", "lr": 0.001}})
    assert advice.usual_rate(curves) == {"optimizer.lr": 0.0005}
