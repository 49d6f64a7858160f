"""What is done with a trial, in the process that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan


@dataclass(frozen=True)
class TrialCallbacks:
    """How a trial hears from outside.

    Attributes:
        should_stop: asked about twice a second; a reason means: save what there is and return, to go on later.
        after_epoch: told what an epoch measured; a reason means: this was the last one, end well.
    """

    should_stop: Callable[[], str | None]
    after_epoch: Callable[[Mapping[str, float]], str | None]


Trainable: TypeAlias = Callable[[Plan, RunFolder, Group, TrialCallbacks], None]
"""Does a trial's work and leaves its results, and a progress.json with its status, in the trial's run folder."""


def train_trial(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Trains to the end of the job, or of the study's patience with it."""
    train(plan, run, group, hooks.should_stop, hooks.after_epoch)
