"""What probes may cost: rows that pass through the network, and time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Rows and seconds that probes may take. It is asked before a measurement, so time is overspent by one at most.

    Attributes:
        rows: that may pass through the network, forwards or both ways: epochs × training rows. spent: those that did.
        seconds: from the creation of this object on.
    """

    rows: float
    seconds: float = math.inf
    spent: int = 0
    _began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Rows that may still pass; none where the time is up."""
        return max(0.0, self.rows - self.spent) if self.elapsed < self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def take(self, rows: int) -> bool:
        """Counts the rows as spent; says no, and counts none, where there is no room for them or no time left."""
        if rows > self.left or self.elapsed >= self.seconds:
            return False
        self.spent += rows
        return True
