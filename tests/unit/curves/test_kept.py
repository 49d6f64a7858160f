"""A verdict says which model the run keeps, by the metric that chose it: not only where the curves end."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.curves.curves import made as made

from lehr.curves.diagnosis import diagnose
from lehr.curves.kept import with_model
from lehr.curves.record import Curves


def with_column(name: str, values: dict[int, float], **train: object) -> Curves:
    """A run that ends at 90 %, with another column that is `values` at some epochs and 0.5 at others."""
    curves = made(lambda p: 2.3 * np.exp(-3 * p), validation=0.9, train=0.92, job={"train": {"epochs": 20, **train}})
    column = np.full(len(curves.epochs["epoch"]), 0.5)
    for epoch, value in values.items():
        column[epoch - 1] = value
    return dataclasses.replace(curves, epochs={**curves.epochs, name: column})


@pytest.mark.parametrize(
    ("metric", "values", "said"),
    [
        (
            "averaged_validation_accuracy",
            {17: 0.9321},
            "the model is that of epoch 17, with averaged validation accuracy 93.21%",
        ),
        ("averaged_validation_loss", {4: 0.25}, "the model is that of epoch 4, with averaged validation loss 0.2500"),
    ],
)
def test_the_verdict_speaks_of_the_metric_that_chose_the_model(
    metric: str, values: dict[int, float], said: str
) -> None:
    first = diagnose(with_column(metric, values, metric=metric)).first
    assert first.evidence.endswith(said)
    assert "validation accuracy" in first.evidence  # and where the curves end


def test_nothing_is_said_of_a_metric_that_was_never_recorded() -> None:
    first = diagnose(with_column("other", {}, metric="averaged_validation_accuracy")).first
    assert "the model is that" not in first.evidence


def test_what_the_verdict_has_told_is_not_said_again() -> None:
    first = diagnose(made(lambda p: 2.3 * np.exp(-3 * p), validation=0.9, train=0.92)).first
    assert "90.0%" in first.evidence
    assert "the model is that" not in first.evidence


def test_the_same_figure_of_something_else_is_no_reason_to_be_silent() -> None:
    curves = made(lambda p: 1.0, validation=lambda p: 0.95 if p == 0.5 else 0.9)
    of_another = replace(diagnose(curves).first, evidence="validation: a linear model reaches 95.0%")
    assert "the model is that of epoch 10, with validation accuracy 95.00%" in with_model(of_another, curves).evidence
