"""How long a job made of trials still takes, from what its trials took so far.

An epoch takes what the trials themselves measured: loading data and starting Ray, which come once, are no part of it,
nor is what the first step of a process takes longer than the others.
What each further trial adds (its start, its test, its model) is measured where trials follow each other. What is left
is dealt to as many trials as run side by side, each to the one that is free first.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from lehr.trials.trainable import Deadline

END_SECONDS = 3.0
"""What follows the last trial: choosing, measuring what was chosen, importing what draws, and the page."""
DIFFER = 1.5
"""By what factor the times of two trials are thought to differ before any were seen."""
THIRD = 4 / 3
"""An estimate that may be off by more is told with its range."""


@dataclass(frozen=True)
class Work:
    """What a study still has to train, in epochs.

    Attributes:
        running: by folder, what is left of each trial that has begun.
        waiting: of each trial to come, what it is expected to take.
        seconds: what comes after all trials.
        deadline: when everything ends at the latest.
        told: by folder, the seconds that running trials without epochs say they still take.
        waiting_seconds: of each trial to come that has no epochs, what it is expected to take.
    """

    running: Mapping[str, float] = field(default_factory=dict)
    waiting: Sequence[float] = ()
    seconds: float = 0.0
    deadline: Deadline | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    waiting_seconds: Sequence[float] = ()


@dataclass
class _Watch:
    """What was seen of one trial: moments as the clock has them, and what its epochs took by its own clock."""

    began: float
    follows: bool  # began in the place of a trial that had ended
    weight: float
    epochs: list[float] = field(default_factory=list)
    last: float = 0.0
    start: float = 0.0
    ended: float | None = None

    @property
    def epoch_seconds(self) -> float | None:
        """Of an epoch of weight 1; the first one, in which things are compiled, counts only while it is alone."""
        return mean(self.epochs[1:] or self.epochs) / self.weight if self.epochs and self.weight else None


class Pace:
    """Watches the trials of a study in this attempt, and says how long the rest takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trials: dict[str, _Watch] = {}
        self._any_ended = False

    def began(self, folder: str, weight: float = 1.0) -> None:
        """A trial takes a place that is free; an epoch of it takes `weight` times what others' take."""
        self._trials[folder] = _Watch(self._clock(), self._any_ended, weight)

    def epoch(self, folder: str, row: Mapping[str, float]) -> None:
        """A trial has ended an epoch, which took `row["seconds"]` by its own clock, if it says so."""
        if not (watch := self._trials.get(folder)):
            return
        now = self._clock()
        took, warm_up = row.get("seconds") or now - (watch.last or watch.began), row.get("warm_up", 0.0)
        if not watch.epochs:
            watch.start = max(0.0, now - took - watch.began) + warm_up
        watch.epochs.append(max(0.0, took - warm_up))
        watch.last = now

    def ended(self, folder: str) -> None:
        """A trial has ended, and its place is free."""
        self._any_ended = True
        if watch := self._trials.get(folder):
            watch.ended = self._clock()

    def doubt(self, work: Work) -> float:
        """The factor by which the estimate may be too high or too low; 1 where it is right within a third.

        Trials to come may take longer or shorter than those seen. How much their times differ is guessed at first: two
        trials that differ by half are added to those seen, which count more and more.
        """
        known = [math.log(each) for watch in self._trials.values() if (each := watch.epoch_seconds)]
        if not work.waiting or not known:
            return 1.0
        apart = 2 * math.log(DIFFER) ** 2 + sum((each - mean(known)) ** 2 for each in known)
        factor = math.exp(math.sqrt(apart / (1 + len(known)) / len(known)))
        return factor if factor > THIRD else 1.0

    def seconds_left(self, work: Work, at_once: int) -> float | None:
        """How long the study still takes where `at_once` trials run side by side; None where nobody can know yet."""
        most = work.deadline.seconds_left if work.deadline else None
        known = [each for watch in self._trials.values() if (each := watch.epoch_seconds) is not None]
        if not known and (work.waiting or not work.told or set(work.running) - set(work.told)):
            return None
        silent = [name for name in work.running if (watch := self._trials.get(name)) and not watch.weight]
        if set(silent) - set(work.told):  # it has no epochs, and has not said yet how long it takes
            return None
        usual, now = mean(known or [0.0]), self._clock()
        watched = self._trials.values()
        start = median([each.start for each in watched if each.follows and each.epochs] or [0.0])
        tail = median([each.ended - each.last for each in watched if each.ended and each.epochs] or [0.0])
        running = []
        for folder, epochs in work.running.items():
            if folder in work.told:
                running.append(work.told[folder] + tail)
                continue
            watch = self._trials.get(folder)
            takes = (watch and watch.epoch_seconds) or usual
            since = now - (watch.last or watch.began + start) if watch else 0.0
            running.append(max(0.0, epochs * takes - max(0.0, since)) + tail)
        waiting = [
            start + seconds + tail for seconds in (*(each * usual for each in work.waiting), *work.waiting_seconds)
        ]
        left = makespan(running, waiting, at_once) + work.seconds
        return left if most is None else max(0.0, min(left, most))


def makespan(running: Sequence[float], waiting: Sequence[float], at_once: int) -> float:
    """When the last of some tasks ends, each given in order to the place that is free first.

    Args:
        running: seconds that those which have begun still take.
        waiting: seconds that each of the others takes.
        at_once: places.
    """
    places = sorted(running) + [0.0] * max(0, at_once - len(running))
    heapq.heapify(places)
    for seconds in waiting:
        heapq.heappush(places, heapq.heappop(places) + seconds)
    return max(places, default=0.0)
