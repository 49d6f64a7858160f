"""The progress of a job made of trials: the parent's progress.json, which the screen and `lehr status` show."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from lehr.driver import Running
from lehr.runs import Progress
from lehr.runs.progress import State
from lehr.trials.study import Study

SHOW_SECONDS = 0.5  # between updates of the screen


class ParentProgress:
    """Keeps the parent's progress.json and the screen up to date while its trials run."""

    def __init__(self, running: Running, study: Study) -> None:
        self.running, self.study = running, study
        self.counts: Counter[str] = Counter(running=0, finished=0, failed=0)
        self.began = time.time()
        self._told = 0.0

    def count(self, status: str, change: int = 1) -> None:
        """Counts a trial that started or stopped `running`, or that ended as `finished` or `failed`."""
        self.counts[status] += change
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
        progress = Progress(
            status=status,
            message=message,
            best=told.best,
            measured_rows=told.measured_rows,
            seconds={"total": time.time() - self.began, **told.seconds},
            seconds_left=told.seconds_left,
            updated=time.time(),
            overview=overview,
        )
        self.running.run.write_progress(progress)
        self.running.screen.progress(progress)
        self._told = time.monotonic()
