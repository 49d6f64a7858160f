"""How many epochs a trial of a search is expected to get, where trials that fall behind are ended early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lehr.job.search import Stopping
from lehr.search.record import TrialRecord
from lehr.search.rungs import rungs

BELOW_MEDIAN = 0.1
"""The share of trials that the median rule is expected to end after an epoch, before any was seen to end."""


@dataclass(frozen=True)
class Survival:
    """The chance to go on, by epoch (from 1) at which trials are compared; `epochs` is the full length of a trial."""

    chances: Mapping[int, float]
    epochs: int

    @classmethod
    def of(cls, stopping: Stopping, epochs: int, records: Iterable[TrialRecord]) -> Survival:
        """What the trials so far show. `factor` trials, of which one goes on, are added to those seen at each rung."""
        seen = [record for record in records if record.scores]
        if stopping.name == "none":
            return cls({}, epochs)
        asha = stopping.name == "asha"
        compared = rungs(stopping, epochs) if asha else range(stopping.first, epochs)
        before, weight = (1.0 / stopping.factor, stopping.factor) if asha else (1 - BELOW_MEDIAN, 1 / BELOW_MEDIAN)
        chances = {}
        for epoch in compared:
            reached = sum(len(record.scores) >= epoch for record in seen)
            ended = sum(record.ended is not None and record.ended.epoch == epoch for record in seen)
            chances[epoch] = (reached - ended + before * weight) / (reached + weight)
        return cls(chances, epochs)

    def epochs_left(self, done: int) -> float:
        """The expected number of further epochs of a trial that goes on after `done` of them."""
        expected, alive, last = 0.0, 1.0, done
        for epoch in sorted(each for each in self.chances if each > done):
            expected += alive * (epoch - last)
            alive, last = alive * self.chances[epoch], epoch
        return expected + alive * (self.epochs - last)
