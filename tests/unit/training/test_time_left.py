"""The estimate of the time left of a training, against steps and evaluations whose times are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lehr.runs import TrainingProgress
from lehr.training.live_progress import LiveProgress


class Known:
    """A training of 10 epochs of 20 steps, resumed after `first` of them."""

    def __init__(self, first: int = 0, test: bool = False) -> None:
        self.spent = dict.fromkeys(("input", "compute", "evaluation", "records", "checkpoints"), 0.0)
        self.step, self.first = first, first
        live: Any = object.__new__(LiveProgress)
        length = SimpleNamespace(total_steps=200, steps_per_epoch=20)
        live._plan = SimpleNamespace(length=length, splits=SimpleNamespace(test=[1] if test else None))
        live._stopwatch, live._first_step, live._warm = SimpleNamespace(seconds=self.spent), first, None
        live.training = TrainingProgress(epochs=10, epochs_done=first // 20)
        self.live = live

    def steps(self, count: int, seconds: float) -> None:
        self.step += count
        self.spent["compute"] += count * seconds

    def epoch_ends(self, evaluation: float, checkpoints: float = 0.0) -> None:
        self.spent["evaluation"] += evaluation
        self.spent["checkpoints"] += checkpoints
        self.live.training = TrainingProgress(epochs=10, epochs_done=self.step // 20)

    @property
    def left(self) -> float | None:
        found: float | None = self.live._seconds_left(self.step)
        return found


def test_nothing_is_said_before_the_first_step() -> None:
    assert Known().left is None


def test_the_first_step_in_which_kernels_are_compiled_is_no_measure_of_the_others() -> None:
    run = Known()
    run.steps(1, 60.0)
    assert run.left == pytest.approx(199 * 60), "it is all that is known"
    run.steps(9, 0.1)
    assert run.left == pytest.approx(190 * 0.1)


def test_evaluations_and_checkpoints_of_the_epochs_to_come_count() -> None:
    run = Known()
    run.steps(1, 0.1)
    assert run.left
    run.steps(19, 0.1)
    run.epoch_ends(evaluation=3.0, checkpoints=1.0)
    assert run.left == pytest.approx(180 * 0.1 + 9 * 4 + 3), "and the answers of the model that is kept"


def test_a_test_split_is_evaluated_once_more() -> None:
    run = Known(test=True)
    run.steps(20, 0.1)
    run.epoch_ends(evaluation=3.0)
    assert run.left == pytest.approx(180 * 0.1 + 9 * 3 + 2 * 3)


def test_a_resumed_training_counts_by_what_it_did_since() -> None:
    run = Known(first=100)
    run.steps(1, 0.1)
    assert run.left
    run.steps(19, 0.1)
    run.epoch_ends(evaluation=2.0)
    assert run.left == pytest.approx(80 * 0.1 + 4 * 2 + 2)


def test_what_is_left_is_never_negative_and_shrinks_to_the_end() -> None:
    run, before = Known(), float("inf")
    for _ in range(10):
        for _ in range(20):
            run.steps(1, 0.1)
            assert run.left is not None
            assert run.left >= 0
        run.epoch_ends(evaluation=1.0)
        assert run.left is not None
        assert run.left <= before
        before = run.left
