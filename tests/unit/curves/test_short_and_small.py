"""Short runs and small sets: what they do not show is not told."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.job import TrainJob, from_dict, parse_overrides
from lehr.runs import DataSurvey, NetworkSurvey, SplitSurvey

from .curves import made

GUESS = math.log(10)


def learning(p: float) -> float:
    return 0.2 + 2.1 * math.exp(-4 * p)


def photographs(rows: int = 240, classes: int = 4, side: int = 64, **options: Any) -> Curves:
    """240 photographs of four classes, 90 steps: half of 48 validation rows are right, rather more in training."""
    survey = DataSurvey(
        SplitSurvey(rows=rows, counts=(rows // classes,) * classes), SplitSurvey(rows=48, counts=(12,) * 4)
    )
    usual: dict[str, Any] = {"train": 0.6, "validation": 0.52, "validation_loss": 1.2, "epochs": 9}
    curves = made(lambda p: 1.4 - 0.5 * p, classes=classes, survey=survey, steps_per_epoch=10, **usual | options)
    return replace(curves, validation_rows=48, image=(side, side, 3))


def test_240_photographs_and_90_steps_are_advised_to_start_from_pretrained_weights() -> None:
    first = diagnose(photographs()).first
    assert first.name in ("unclear", "nothing_seen"), "neither a guess nor healthy, and no reason to widen the network"
    assert first.advice.startswith("Start from pretrained weights: with 60 training images a class")
    assert "model" not in first.overrides, "a recipe tries these by itself"
    typed = shlex.split(first.advice.partition("lehr run JOB ")[2].partition(". Or else")[0])
    job = from_dict({"kind": "train", "model": {"width": 64}}, parse_overrides(typed))
    assert isinstance(job, TrainJob)
    assert (job.model.name, job.model.weights) == ("resnet18", "pretrained")


@pytest.mark.parametrize(
    "curves",
    [
        photographs(rows=8000),
        photographs(side=16),
        photographs(job={"model": {"name": "resnet18", "weights": "pretrained"}}),
        replace(photographs(), image=(64, 64, 1)),
        replace(photographs(), image=None),
    ],
    ids=["many", "tiny", "pretrained already", "grey", "unknown"],
)
def test_others_are_not(curves: Curves) -> None:
    assert "pretrained weights: with" not in diagnose(curves).first.advice


def test_a_few_photographs_that_are_all_right_need_nothing() -> None:
    assert diagnose(photographs(train=1.0, validation=1.0)).first.name == "healthy"


def test_three_epochs_of_a_rising_run_are_no_overfitting() -> None:
    curves = made(
        learning,
        epochs=4,
        train=lambda p: 0.4 + 0.5 * p,
        validation=lambda p: 0.4 + 0.3 * p,
        validation_loss=lambda p: 2.0 - 1.2 * p,
    )
    first = diagnose(curves).first
    assert first.name == "too_short"
    assert "fell by" in first.evidence


def test_a_network_that_is_still_learning_its_rows_is_not_at_chance() -> None:
    curves = made(lambda p: GUESS - 0.6 * p, train=lambda p: 0.1 + 0.2 * p, validation=0.12, validation_loss=GUESS)
    assert diagnose(curves).first.name == "unclear"


def test_a_falling_validation_loss_shows_that_it_learns_where_a_few_rows_do_not() -> None:
    curves = made(
        lambda p: GUESS - 0.5 * p, train=0.14, validation=0.14, validation_loss=lambda p: GUESS - 0.4 * p, epochs=10
    )
    assert diagnose(replace(curves, validation_rows=60)).first.name == "too_short"


def test_thirty_steps_at_chance_are_no_verdict() -> None:
    curves = made(
        lambda p: GUESS - 0.2 * p, epochs=6, steps_per_epoch=5, train=0.1, validation=0.1, validation_loss=2.3
    )
    first = diagnose(curves).first
    assert first.name == "unclear"
    assert "after 30 steps" in first.evidence


def test_a_run_that_is_nearly_perfect_is_not_told_to_train_longer() -> None:
    curves = made(learning, train=0.96, validation=0.97, validation_loss=lambda p: 1.0 - 0.9 * p)
    assert diagnose(curves).first.name == "healthy"


@pytest.mark.parametrize(
    ("right", "rows", "name"), [(19, 22, "nothing_seen"), (22, 22, "healthy"), (45, 52, "nothing_seen")]
)
def test_a_few_mistakes_among_few_rows_are_not_healthy(right: int, rows: int, name: str) -> None:
    curves = made(learning, train=right / rows, validation=right / rows)
    assert diagnose(replace(curves, validation_rows=rows)).first.name == name


def test_a_last_batch_of_two_rows_is_no_rate_that_is_too_high() -> None:
    curves = made(lambda p: GUESS - 0.3 * p, train=0.1, validation=0.1, validation_loss=2.3, steps_per_epoch=21)
    steps = {name: column.copy() for name, column in curves.steps.items()}
    steps["examples"][20::21] = 2.0
    steps["loss"][20::21] = np.where(np.arange(20) % 2, 5.0, 0.2)
    told = diagnose(replace(curves, steps=steps)).first.name
    assert told == diagnose(curves).first.name
    assert told not in ("diverged", "oscillating")


def test_always_the_most_frequent_class_is_no_more_than_a_guess() -> None:
    counts = (300, 100, 100, 100)
    survey = DataSurvey(SplitSurvey(rows=600, counts=counts), SplitSurvey(rows=600, counts=counts))
    curves = made(1.25, classes=4, train=0.5, validation=0.5, validation_loss=1.24, survey=survey, update=0.003)
    first = diagnose(replace(curves, validation_rows=600)).first
    assert first.name == "not_learning"


def test_a_network_with_more_weights_than_rows_is_not_called_too_small() -> None:
    survey = DataSurvey(SplitSurvey(rows=1000, counts=(100,) * 10), SplitSurvey(rows=360, counts=(36,) * 10))
    network = NetworkSurvey(parameters=50_000, trainable=50_000, reached=50_000)
    curves = made(2.0, train=0.25, validation=0.25, validation_loss=2.0, survey=survey, network=network)
    assert diagnose(curves).first.name == "unclear"


def test_adadelta_at_a_thousandth_of_its_rate_has_a_rate_that_is_too_low() -> None:
    job = {"optimizer": {"name": "adadelta", "lr": 1e-3}}
    flat = made(GUESS, train=0.1, validation=0.1, validation_loss=GUESS, update=2e-5, job=job)
    first = diagnose(flat).first
    assert first.name == "rate_too_low"
    assert first.overrides["optimizer.lr"] > 1e-3
