"""What a trial runs, in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from lehr.training.stopping import Enough


@dataclass(frozen=True)
class TrialCallbacks:
    """How a trial talks to its study.

    Attributes:
        should_stop: called about twice a second; if it returns a reason, the trial saves its state and returns, to be
            resumed later. With `Enough`, it ends for good with what it has.
        after_epoch: called with the metrics of each epoch; if it returns a reason, that epoch was the last one and the
            trial finishes.
    """

    should_stop: Callable[[], str | None]
    after_epoch: Callable[[Mapping[str, float]], str | None]


LOOKS = 0.5  # seconds between two looks of a trial at the time: it ends at the last one before its deadline


@dataclass(frozen=True)
class Deadline:
    """When a trial ends with what it has, wherever it is.

    Attributes:
        time: seconds since 1970. reason: why, in words.
    """

    time: float
    reason: str

    @property
    def passed(self) -> bool:
        return time.time() >= self.time

    @property
    def seconds_left(self) -> float:
        return self.time - time.time()

    def watch(self, should_stop: Callable[[], str | None]) -> Callable[[], str | None]:
        """The same function, which also says when this time has come; a request to stop and resume comes first."""
        return lambda: should_stop() or (Enough(self.reason) if self.passed or self.seconds_left < LOOKS else None)


Trainable: TypeAlias = Callable[[Plan, RunFolder, Group, TrialCallbacks], None]
"""Runs a trial. It leaves its results, and how it ended (`RunFolder.write_progress`), in the trial's run folder."""


def train_trial(plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks) -> None:
    """Trains until the job is done or the study ends the trial early."""
    train(plan, run, group, callbacks.should_stop, callbacks.after_epoch)
