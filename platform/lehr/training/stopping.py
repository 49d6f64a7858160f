"""What counts as best, and when to stop early. Pure functions of the metrics so far, the same on every worker."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far.

    Attributes:
        metric: its name; names ending in `loss` are minimised, all others maximised.
        value, step, epoch: the best value and where it was reached (epochs counted from 1); None before the first.
        stale: epochs since then.
    """

    metric: str
    value: float | None = None
    step: int | None = None
    epoch: int | None = None
    stale: int = 0

    def update(self, value: float, step: int, epoch: int, min_change: float = 0.0) -> Best:
        """The best after one more epoch. Only a change of more than `min_change` counts; NaN never does."""
        sign = -1.0 if self.metric.endswith("loss") else 1.0
        if math.isnan(value) or (self.value is not None and sign * (value - self.value) <= min_change):
            return replace(self, stale=self.stale + 1)
        return replace(self, value=value, step=step, epoch=epoch, stale=0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
