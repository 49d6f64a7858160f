"""What counts as best, and when training ends early: pure functions of what was measured so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lehr.job import TrainSection
from lehr.runs import BestValue
from lehr.runs.progress import LiveDiagnosis

EXPLODED = 1000.0
"""A loss above this many times the first one (or 1, if that is more) never recovers, whether finite or not."""


class Enough(str):
    """A reason to stop for good, such as a budget of time that is used up: the best model so far is the result."""


class Leaving(str):
    """A reason to save and leave: these workers are about to lose their machine, and others go on with the run."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far.

    Attributes:
        metric: its name.
        value, step, epoch: the best value and where it was reached (epochs counted from 1); None before the first.
        stale: epochs since then.
        lower: whether lower values are better.
    """

    metric: str
    value: float | None = None
    step: int | None = None
    epoch: int | None = None
    stale: int = 0
    lower: bool = False

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Best:
        """From a checkpoint. Older ones do not say which values are better: those of losses were minimised."""
        return cls(**{"lower": saved["metric"].endswith("loss"), **saved})

    def update(self, value: float, step: int, epoch: int, min_change: float = 0.0) -> Best:
        """The best after one more epoch. Only a change of more than `min_change` counts; NaN never does."""
        sign = -1.0 if self.lower else 1.0
        if math.isnan(value) or (self.value is not None and sign * (value - self.value) <= min_change):
            return replace(self, stale=self.stale + 1)
        return replace(self, value=value, step=step, epoch=epoch, stale=0)

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def shown(self) -> BestValue:
        """As progress and outcome have it."""
        return BestValue(self.metric, self.value, self.epoch, self.step)


@dataclass(frozen=True)
class EarlyStop:
    """Why training ends before its last epoch: a sentence, and the diagnosis behind it if that is the reason."""

    sentence: str
    diagnosis: str = ""

    @property
    def details(self) -> dict[str, str]:
        """Fields of its event."""
        return {"diagnosis": self.diagnosis} if self.diagnosis else {}


def early_stop(section: TrainSection, patience: Best, diagnosis: LiveDiagnosis) -> EarlyStop | None:
    """Whether training ends after the newest epoch, and why.

    Args:
        patience: the best value of the metric that early stopping watches.
        diagnosis: what the curves so far make clear.
    """
    early = section.early_stopping
    if early and patience.value is not None and patience.stale >= early.patience:
        return EarlyStop(f"{patience.metric} has not improved for {patience.stale} epochs")
    if diagnosis.name in section.stop_on:
        return EarlyStop(diagnosis.sentence, diagnosis.name)
    return None


def first_exploded(losses: Sequence[float], first_loss: float | None) -> int | None:
    """The index of the first loss that is not finite or far above the first of the run; None where there is none.

    Args:
        losses: of consecutive steps.
        first_loss: of the run; None where `losses` begin with it.
    """
    limit = EXPLODED * max(losses[0] if first_loss is None else first_loss, 1.0)
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss) or loss > limit), None)
