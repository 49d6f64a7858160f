"""The progress of a job made of trials: the parent's progress.json, which the screen and `lehr status` show."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from lehr.driver import Running
from lehr.formatting import stop_reason
from lehr.runs import Progress
from lehr.runs.progress import State
from lehr.trials.pace import Pace
from lehr.trials.study import Study, Trial

SHOW_SECONDS = 0.5  # between updates of the screen


class ParentProgress:
    """Keeps the parent's progress.json and the screen up to date while its trials run.

    Attributes:
        at_once: how many trials run side by side.
    """

    def __init__(self, running: Running, study: Study) -> None:
        self.running, self.study = running, study
        self.counts: Counter[str] = Counter(running=0, finished=0, failed=0)
        self.began = time.time()
        self.at_once = 1
        self._pace = Pace()
        self._told = 0.0

    def trial_began(self, trial: Trial) -> None:
        """A trial has begun."""
        self._pace.began(trial.folder, trial.weight)
        self.counts["running"] += 1
        self.tell("running")

    def trial_epoch(self, trial: Trial, row: Mapping[str, float]) -> None:
        """A trial has ended an epoch."""
        self._pace.epoch(trial.folder, row)

    def trial_left(self, trial: Trial) -> None:
        """A trial no longer runs, whether it has ended or is to be resumed later."""
        self._pace.ended(trial.folder)
        self.counts["running"] -= 1

    def trial_ended(self, status: str) -> None:
        """A trial that no longer runs has ended as `finished` or `failed`, in this attempt or an earlier one."""
        self.counts[status] += 1
        self.tell("running")

    def tick(self) -> None:
        """Tells how far the running job is, but not more often than is worth it."""
        if time.monotonic() - self._told > SHOW_SECONDS:
            self.tell("running")

    def tell(self, status: State, message: str = "") -> None:
        """Writes and shows how far the job is; headline, figures and table come from the study."""
        told = self.study.progress()
        headline = f"{self.counts['finished']} finished, {self.counts['running']} running"
        overview = replace(
            told.overview,
            headline=told.overview.headline or headline,
            children=told.overview.children or dict(self.counts),
        )
        left, (least, most) = told.seconds_left, told.seconds_left_range or (None, None)
        if left is None and told.work:
            left = self._pace.seconds_left(told.work, self.at_once)
            if left is None:
                most = told.work.deadline.seconds_left if told.work.deadline else None
            elif (doubt := self._pace.doubt(told.work)) > 1:
                least, most = left / doubt, left * doubt
        progress = Progress(
            status=status,
            message=stop_reason(message),
            best=told.best,
            measured_rows=told.measured_rows,
            seconds={"total": time.time() - self.began, **told.seconds},
            seconds_left=left,
            seconds_left_least=least,
            seconds_left_most=most,
            updated=time.time(),
            overview=overview,
        )
        self.running.run.write_progress(progress)
        self.running.screen.progress(progress)
        self._told = time.monotonic()
