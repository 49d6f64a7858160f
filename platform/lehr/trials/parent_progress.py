"""What a job made of trials tells of itself: the parent's progress.json, which the screen and `lehr status` show."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from lehr.driver import Running
from lehr.trials.study import Study


class ParentProgress:
    """Keeps the parent's progress.json and the screen up to date while its trials run."""

    def __init__(self, running: Running, study: Study) -> None:
        self.running, self.study = running, study
        self.counts: Counter[str] = Counter(running=0, finished=0, failed=0)
        self.began = time.time()

    def count(self, status: str, change: int = 1) -> None:
        """Notes that a trial began or stopped to be `running`, or ended `finished` or `failed`."""
        self.counts[status] += change
        self.tell("running")

    def tell(self, status: str, message: str = "") -> None:
        """Writes and shows how far the job is; the study adds its own figures, headline and table."""
        told: dict[str, Any] = {
            "status": status,
            "message": message,
            "done": 0.0,
            "headline": f"{self.counts['finished']} finished, {self.counts['running']} running",
            "facts": {},
            "table": {"columns": [], "rows": []},
            "children": dict(self.counts),
            "seconds": {"total": time.time() - self.began},
            "updated": time.time(),
        } | self.study.progress()
        self.running.run.write_progress(told)
        self.running.screen.progress(told)
