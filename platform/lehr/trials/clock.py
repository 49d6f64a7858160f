"""How long a job made of trials has taken, all attempts together."""

from __future__ import annotations

import time

from lehr.runs import RunFolder
from lehr.trials.trainable import Deadline


class Clock:
    """Counts from what the record says of earlier attempts; waiting between two attempts is not counted."""

    def __init__(self, run: RunFolder) -> None:
        self._before = run.progress().seconds.get("total", 0.0)
        self._began = time.monotonic()

    @property
    def seconds_here(self) -> float:
        """Of this attempt."""
        return time.monotonic() - self._began

    @property
    def seconds(self) -> float:
        """Of all attempts together."""
        return self._before + self.seconds_here

    def deadline(self, seconds: float, reason: str) -> Deadline:
        """When all attempts together have taken so many seconds."""
        return Deadline(time.time() + seconds - self.seconds, reason)
