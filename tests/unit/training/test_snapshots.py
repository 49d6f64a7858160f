"""A checkpoint at the end of every cycle is kept, and changes nothing about the training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.training.conftest import losses, plan_of

from lehr.errors import JobError
from lehr.runs import RunFolder
from lehr.runs.checkpoints import saved

TrainTiny = Callable[..., RunFolder]


def test_snapshots_are_kept_when_other_checkpoints_are_pruned(train_tiny: TrainTiny) -> None:
    """16 steps in 3 cycles of 6, 6 and 4 steps, which do not end where the epochs of 4 steps do."""
    options = {"train__epochs": 4, "schedule": {"name": "cyclic", "cycles": 3}, "train__checkpoint": {"keep": 1}}
    plain = train_tiny(**options)
    run = train_tiny(**{**options, "train__checkpoint": {"keep": 1, "snapshots": True}})
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.best.step is not None
    assert set(saved(run.folder)) == {6, 12, 16, outcome.best.step}
    assert losses(run) == losses(plain)
    assert 6 not in saved(plain.folder)


def test_a_schedule_without_cycles_has_no_snapshots() -> None:
    with pytest.raises(JobError, match="the schedule cosine has no cycles; allowed with schedule: cyclic"):
        plan_of(schedule="cosine", train__checkpoint={"snapshots": True})
