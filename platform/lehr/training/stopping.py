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
        loss: the loss on the same rows there, which decides between equal values; None where it is not known.
    """

    metric: str
    value: float | None = None
    step: int | None = None
    epoch: int | None = None
    stale: int = 0
    lower: bool = False
    loss: float | None = None

    @classmethod
    def read(cls, saved: Mapping[str, Any], loss: float | None = None) -> Best:
        """From a checkpoint. Older ones do not say which values are better: those of losses were minimised."""
        return cls(**{"lower": saved["metric"].endswith("loss"), **saved}, loss=loss)

    def update(self, value: float, step: int, epoch: int, min_change: float = 0.0, loss: float | None = None) -> Best:
        """The best after one more epoch. Only a change of more than `min_change` counts; NaN never does.

        Of equal values, as few rows often have, that with the lower `loss` is the better one; the first, if that is
        equal too or not known.
        """
        sign = -1.0 if self.lower else 1.0
        known = loss if loss is not None and math.isfinite(loss) else None
        if value == self.value and known is not None and known < (math.inf if self.loss is None else self.loss):
            return replace(self, step=step, epoch=epoch, stale=0, loss=known)
        if math.isnan(value) or (self.value is not None and sign * (value - self.value) <= min_change):
            return replace(self, stale=self.stale + 1)
        return replace(self, value=value, step=step, epoch=epoch, stale=0, loss=known)

    def to_json(self) -> dict[str, object]:
        """Without the loss, which has a place of its own in a checkpoint: earlier versions read this as a whole."""
        return {name: value for name, value in asdict(self).items() if name != "loss"}

    def shown(self) -> BestValue:
        """As progress and outcome have it."""
        return BestValue(self.metric, self.value, self.epoch, self.step, loss=self.loss)


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
