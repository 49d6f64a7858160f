"""What the rules read of a log: a handful of numbers, each measured against the noise of its own curve."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lehr.other_tools.log import LEARNING_RATE, TRAIN_LOSS, VALIDATION_LOSS, Curve, Log, Meaning
from lehr.reporting.smoothing import Floats, slope

FEW = 3  # evaluations, or epochs, below which every curve is still changing
BINS = 40  # of a training loss recorded for every step
SURE = 3.0  # standard errors beyond which a difference counts
UNKNOWN_NOISE = 0.03  # of a curve of a few points, as a share of its range: they cannot show their own


@dataclass(frozen=True)
class Signals:
    """Measures of the curves of one training."""

    log: Log

    @cached_property
    def loss(self) -> Curve | None:
        """The training loss, in at most `BINS` means where every step was recorded."""
        curve = self.every_loss
        return _binned(curve) if curve and len(curve) > BINS else curve

    @cached_property
    def every_loss(self) -> Curve | None:
        """The training loss as it was recorded."""
        return _called("the training loss", self.log.curve(TRAIN_LOSS))

    @cached_property
    def validation_loss(self) -> Curve | None:
        return _called("the validation loss", self.log.curve(VALIDATION_LOSS))

    @cached_property
    def metric(self) -> Curve | None:
        """The validation metric that says most, turned so that more is better."""
        meaning = self.log.metric
        curve = _called(str(meaning), self.log.curve(meaning)) if meaning else None
        return curve if curve is None or meaning is None or meaning.rises else replace(curve, y=-curve.y)

    @property
    def evaluations(self) -> int:
        """How often validation rows were measured."""
        return max((len(each) for each in (self.validation_loss, self.metric) if each), default=0)

    @cached_property
    def is_short(self) -> bool:
        """Whether too little was recorded to judge anything but a catastrophe."""
        epochs = self.log.epochs
        return self.evaluations < FEW and not epochs >= FEW and (self.loss is None or len(self.loss) < 10)

    @cached_property
    def rate_left(self) -> float:
        """The learning rate at the end over its highest; NaN where it was not recorded."""
        rate = self.log.curve(LEARNING_RATE)
        return float(rate.y[-1] / rate.y.max()) if rate and len(rate) > 1 and rate.y.max() > 0 else math.nan

    def train_at(self, begin: float, end: float) -> float:
        """The mean training loss between two positions; NaN where none was recorded there."""
        inside = self.loss.between(begin, end) if self.loss else np.empty(0)
        return float(inside.mean()) if len(inside) else math.nan

    def gap(self) -> tuple[float, float] | None:
        """Training and validation metric at the end, where the same one was recorded of both."""
        meaning = self.log.metric
        train = self.log.curve(Meaning("train", meaning.quantity)) if meaning else None
        validation = self.log.curve(meaning) if meaning else None
        return (ending(train.y), ending(validation.y)) if train and validation else None


def _called(words: str, curve: Curve | None) -> Curve | None:
    """The curve under the name that sentences use."""
    return replace(curve, column=words) if curve else None


def _binned(curve: Curve) -> Curve:
    edges = np.linspace(curve.x[0], curve.x[-1], BINS + 1)
    place = np.clip(np.searchsorted(edges, curve.x, "left") - 1, 0, BINS - 1)
    kept = [number for number in range(BINS) if (place == number).any()]
    means = np.array([curve.y[place == number].mean() for number in kept])
    return Curve(curve.column, edges[1:][kept], means)


def noise(y: Floats) -> float:
    """The standard deviation of a curve around itself: of each value around the line through its neighbours.

    That line is left by a straight curve with no residual, and by white noise of deviation σ with 1.5 σ² of variance.
    Of fewer than five values a share of their range, since they cannot show it. A value that only repeats the one
    before says nothing of noise: some tools carry the last evaluation on.
    """
    known = y[np.isfinite(y)]
    known = known[np.append(True, np.diff(known) != 0)] if len(known) else known
    if len(known) < 5:
        return UNKNOWN_NOISE * float(np.ptp(known)) if len(known) else 0.0
    residuals = known[1:-1] - (known[:-2] + known[2:]) / 2
    return float(1.4826 * np.median(np.abs(residuals)) / math.sqrt(1.5))


def tail(y: Floats) -> int:
    """How many values stand for the end of a curve: an eighth of them, at least two, one of a few."""
    return 1 if len(y) < 8 else max(2, len(y) // 8)


def ending(y: Floats) -> float:
    """The mean of the last values."""
    return float(y[-tail(y) :].mean())


def around(y: Floats, place: int) -> tuple[float, int]:
    """The mean of a value and its neighbours, and of how many."""
    near = y[max(0, place - 1) : place + 2] if len(y) >= 5 else y[place : place + 1]
    return float(near.mean()), len(near)


def late_gain(curve: Curve) -> tuple[float, float]:
    """How much the values rose over the last third, by a fitted line, and the standard error of that."""
    count = max(3, math.ceil(len(curve) / 3))
    x, y = curve.x[-count:], curve.y[-count:]
    if len(y) < 3 or x[-1] == x[0]:
        return 0.0, math.inf
    span = float(x[-1] - x[0])
    spread = math.sqrt(float(((x - x.mean()) ** 2).sum()))
    return slope(x, y) * span, noise(curve.y) * span / spread
