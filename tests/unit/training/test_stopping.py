"""What counts as best, and when patience runs out."""

from __future__ import annotations

import math

import pytest

from lehr.training.stopping import Best


def after(metric: str, values: list[float], min_change: float = 0.0) -> Best:
    best = Best(metric)
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
def test_the_best_and_the_epochs_since(metric, values, min_change, value, epoch, stale) -> None:
    best = after(metric, values, min_change)
    assert (best.value, best.epoch, best.stale) == (value, epoch, stale)
    assert best.step == (None if epoch is None else epoch * 10)


def test_it_survives_a_checkpoint() -> None:
    best = after("validation_accuracy", [0.5, 0.7, 0.6])
    assert Best(**best.to_dict()) == best
