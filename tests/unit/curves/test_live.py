"""During training only clear cases are diagnosed, and only they may end a run."""

from __future__ import annotations

import math

import pytest

from lehr.curves.live import diagnose_live

GUESS = math.log(10)


def live(losses: list[float], accuracies: list[float], epochs: int = 20) -> str | None:
    history = [
        {"train_loss": loss, "validation_accuracy": accuracy} for loss, accuracy in zip(losses, accuracies, strict=True)
    ]
    found = diagnose_live(history, classes=10, chance_loss=GUESS, validation_rows=360, epochs=epochs)
    return found and found[0]


@pytest.mark.parametrize(
    ("losses", "accuracies", "expected"),
    [
        ([], [], None),
        ([28.0], [0.1], None),  # one epoch is too few
        ([28.0, 3.9, 3.9], [0.1, 0.1, 0.1], "diverged"),
        ([28.0, 3.9, 3.0], [0.1, 0.1, 0.2], None),  # bad, but it recovers and learns
        ([1.0, 0.6, 2.0, 2.3], [0.5, 0.7, 0.1, 0.1], "diverged"),
        ([1.0, 0.6, 0.9, 0.7], [0.5, 0.7, 0.6, 0.7], None),  # a warm restart
        ([GUESS] * 5, [0.1] * 5, "not_learning"),
        ([GUESS] * 4, [0.1] * 4, None),  # some networks start late
        ([2.67, 2.65, 2.62, 2.61, 2.58], [0.1] * 5, None),  # it falls, but slowly
        ([GUESS] * 5, [0.1, 0.1, 0.1, 0.1, 0.3], None),  # accuracy has left chance
        ([2.3, 1.0, 0.5, 0.2, 0.1], [0.3, 0.6, 0.8, 0.9, 0.95], None),
    ],
)
def test_only_clear_cases_are_diagnosed(losses: list[float], accuracies: list[float], expected: str | None) -> None:
    assert live(losses, accuracies) == expected


def test_a_long_run_has_a_fifth_of_its_epochs_to_start_learning() -> None:
    assert live([GUESS] * 19, [0.1] * 19, epochs=100) is None
    assert live([GUESS] * 20, [0.1] * 20, epochs=100) == "not_learning"
