"""What counts as best, and when training stops early."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from lehr.job import TrainJob, TrainSection, from_dict
from lehr.runs import Checkpoint
from lehr.runs.progress import LiveDiagnosis
from lehr.training.state import TrainingState
from lehr.training.stopping import Best, early_stop, first_exploded


def after(metric: str, values: list[float], min_change: float = 0.0) -> Best:
    best = Best(metric, lower=metric.endswith("loss"))
    for epoch, value in enumerate(values, start=1):
        best = best.update(value, step=epoch * 10, epoch=epoch, min_change=min_change)
    return best


@pytest.mark.parametrize(
    ("metric", "values", "min_change", "value", "epoch", "stale"),
    [
        ("validation_accuracy", [0.5, 0.7, 0.6], 0.0, 0.7, 2, 1),
        ("validation_loss", [0.5, 0.7, 0.4], 0.0, 0.4, 3, 0),
        ("train_loss", [1.0, 2.0, 3.0], 0.0, 1.0, 1, 2),
        ("validation_accuracy", [0.7, 0.7, 0.7], 0.0, 0.7, 1, 2),  # a tie is no improvement: the earliest is kept
        ("validation_accuracy", [0.700, 0.705, 0.712], 0.01, 0.712, 3, 0),  # small steps add up against the last best
        ("validation_accuracy", [0.700, 0.705, 0.709], 0.01, 0.700, 1, 2),
        ("validation_loss", [math.nan, 0.9, math.nan], 0.0, 0.9, 2, 1),
        ("validation_loss", [math.nan, math.nan], 0.0, None, None, 2),
    ],
)
def test_the_best_and_the_epochs_since(
    metric: str, values: list[float], min_change: float, value: float | None, epoch: int | None, stale: int
) -> None:
    best = after(metric, values, min_change)
    assert (best.value, best.epoch, best.stale) == (value, epoch, stale)
    assert best.step == (None if epoch is None else epoch * 10)


@pytest.mark.parametrize(
    ("options", "values", "diagnosis", "expected"),
    [
        ({}, [0.5, 0.4, 0.4], LiveDiagnosis("diverged", "no"), None),
        ({"early_stopping": {"patience": 2}}, [0.5, 0.4], LiveDiagnosis(), None),
        ({"early_stopping": {"patience": 2}}, [0.5, 0.4, 0.4], LiveDiagnosis(), "m has not improved for 2 epochs"),
        ({"early_stopping": {"patience": 2}}, [math.nan] * 9, LiveDiagnosis(), None),  # nothing is worth keeping yet
        ({"stop_on": ["diverged"]}, [0.5], LiveDiagnosis("diverged", "the loss climbed"), "the loss climbed"),
        ({"stop_on": ["not_learning"]}, [0.5], LiveDiagnosis("diverged", "the loss climbed"), None),
    ],
)
def test_patience_and_clear_diagnoses_stop_a_run_early(
    options: dict[str, Any], values: list[float], diagnosis: LiveDiagnosis, expected: str | None
) -> None:
    found = early_stop(TrainSection.model_validate(options), after("m", values), diagnosis)
    assert (found and found.sentence) == expected
    assert (found.diagnosis if found else "") == (diagnosis.name if expected == diagnosis.sentence else "")


@pytest.mark.parametrize(
    ("losses", "first_loss", "index"),
    [
        ([2.0, 1.9, 1.8], 2.0, None),
        ([2.0, 2001.0, 5000.0], None, 1),
        ([1999.0], 2.0, None),
        ([0.1, 999.0], 0.1, None),  # a small first loss counts as 1
        ([1.0, math.nan], 2.0, 1),
        ([math.inf], None, 0),
    ],
)
def test_a_loss_explodes_when_it_is_not_finite_or_a_thousand_times_the_first(
    losses: list[float], first_loss: float | None, index: int | None
) -> None:
    assert first_exploded(losses, first_loss) == index


def test_a_checkpoint_restores_the_state_of_training() -> None:
    job = from_dict({"train": {"early_stopping": {"patience": 3, "metric": "validation_loss"}}})
    assert isinstance(job, TrainJob)
    state = TrainingState.start(job)
    for loss in (2.5, 2.0):
        state = state.after_step().with_losses([loss])
    assert state.epoch_loss == 4.5
    state = state.after_epoch(1, {"train_loss": 2.25, "validation_accuracy": 0.4, "validation_loss": 2.1}, 0.0)
    state = state.after_step().with_losses([1.5])
    assert (state.best.value, state.patience.value, state.first_loss, state.epoch_loss) == (0.4, 2.1, 2.5, 1.5)
    stored = json.loads(json.dumps(state.to_json()))
    assert TrainingState.read(Checkpoint(step=3, model={}, state=stored)) == replace(
        state, history=()
    )  # the record has it
    del stored["first_loss"], stored["best"]["lower"], stored["patience"]["lower"]  # as older versions wrote it
    assert TrainingState.read(Checkpoint(step=3, model={}, state=stored)) == replace(state, first_loss=None, history=())
