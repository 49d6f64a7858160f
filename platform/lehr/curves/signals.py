"""What the rules look at: a handful of numbers, measured once on the curves of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lehr.curves.record import Curves
from lehr.curves.smoothing import Floats, slope, smooth
from lehr.curves.thresholds import Thresholds

GRID = 200  # positions over the run at which the smoothed loss is read
SPAN = 1 / 25  # window of the smoothed loss, as a share of the run


@dataclass(frozen=True)
class Signals:
    """Measures of the curves. Positions `at` run over the epochs of the record; `share` is 0 to 1 of its length."""

    curves: Curves
    limits: Thresholds

    # ── the training loss ───────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def length(self) -> float:
        """Epochs recorded."""
        return self.curves.bounds()[1]

    @cached_property
    def at(self) -> Floats:
        return np.linspace(0.0, self.length, GRID + 1)

    @cached_property
    def loss(self) -> Floats:
        """The smoothed training loss at `at`."""
        span = max(SPAN * self.length, 5 / self.curves.steps_per_epoch)
        return smooth(self.curves.steps["epoch"], self.curves.steps["loss"], self.at, span)

    def loss_at(self, share: float) -> float:
        return float(self.loss[round(share * GRID)])

    @cached_property
    def start_loss(self) -> float:
        """The loss before the first update: a rate that is far too high throws it up within a step or two."""
        known = self.curves.steps["loss"][np.isfinite(self.curves.steps["loss"])]
        return float(known[0]) if len(known) else math.nan

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the loss around its average in the second half, over the loss at the start."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        late = x >= self.length / 2
        left = (y - np.interp(x, self.at, self.loss))[late]
        left = left[np.isfinite(left)]
        return float(left.std()) / self.start_loss if len(left) > 2 else 0.0

    @cached_property
    def trend(self) -> float:
        """How surely the loss falls: minus the slope of the line through all steps, in its standard errors."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        known = np.isfinite(y)
        x, y = x[known], y[known]
        falls = -slope(x, y)
        left = y + falls * x
        spread = math.sqrt(float(((x - x.mean()) ** 2).sum())) if len(x) else 0.0
        error = float(left.std()) / spread if spread else 0.0
        return falls / error if error else 0.0

    def mean_loss(self, begin: float, end: float) -> float:
        """The mean training loss of the steps between two shares of the run."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        return float(np.nanmean(y[(x >= begin * self.length) & (x <= end * self.length)]))

    def fall(self, begin: float, end: float) -> float:
        """The fall of the smoothed loss between two shares of the run, as a share of its value at the first."""
        before, after = self.loss_at(begin), self.loss_at(end)
        return (before - after) / before if before > 0 else 0.0

    def step_of(self, epoch: float) -> int:
        return round(epoch * self.curves.steps_per_epoch)

    # ── updates and the learning rate ───────────────────────────────────────────────────────────────────────────────

    def update(self, begin: float, end: float) -> float:
        """The median of |Δw|/|w| between two shares of the run; NaN where it was not measured."""
        x, y = self.curves.steps["epoch"], self.curves.steps["update_ratio"]
        inside = y[(x >= begin * self.length) & (x <= end * self.length) & np.isfinite(y)]
        return float(np.median(inside)) if len(inside) else math.nan

    @cached_property
    def largest_update(self) -> float:
        known = self.curves.steps["update_ratio"][np.isfinite(self.curves.steps["update_ratio"])]
        return float(known.max()) if len(known) else math.nan

    @cached_property
    def rate(self) -> Floats:
        """The learning rate at `at`."""
        return np.interp(self.at, self.curves.steps["epoch"], self.curves.steps["learning_rate"])

    @cached_property
    def warm(self) -> float:
        """The share of the run that is warmup: until the rate has first come near its highest."""
        return float(np.argmax(self.rate >= self.limits.warmed_up * self.rate.max())) / GRID

    @cached_property
    def drop(self) -> float | None:
        """The share of the run from which on the rate stays below `rate_dropped` of its highest, if it ever does."""
        high = np.flatnonzero(self.rate >= self.limits.rate_dropped * self.rate.max())
        last = int(high[-1])
        return None if last >= GRID else last / GRID

    def drop_before(self, share: float) -> bool:
        return self.drop is not None and self.drop <= share

    @property
    def scale(self) -> float:
        """1 for a loss of ordinary size, less where it is close to nothing: noise there is no sign of anything."""
        return min(1.0, self.loss_at(0.5) / (0.02 * self.start_loss))

    # ── accuracies ──────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def validation(self) -> Floats:
        return self.curves.epoch_column("validation_accuracy")

    @cached_property
    def training(self) -> Floats:
        """Accuracy on clean training images in evaluation mode (the running figure is below it: see the record)."""
        return self.curves.epoch_column("clean_train_accuracy", "train_accuracy")

    def last(self, values: Floats) -> float:
        """The mean of the last known values, three at most: one epoch alone is a coin that was thrown.

        Of a short run fewer count, since three epochs ago it was another network.
        """
        known = values[np.isfinite(values)]
        return float(known[-max(1, min(3, len(known) // 3)) :].mean()) if len(known) else math.nan

    def best(self, values: Floats) -> float:
        """The highest mean of three epochs in a row, as `last` takes them."""
        known = values[np.isfinite(values)]
        if len(known) < 3:
            return self.last(known)
        return float(np.convolve(known, np.full(3, 1 / 3), "valid").max())

    @property
    def guess(self) -> float:
        """The cross entropy of a guess: ln(classes); NaN where the number of classes is not known."""
        return math.log(self.curves.classes) if self.curves.classes else math.nan

    @cached_property
    def chance(self) -> float:
        """Accuracy of a guess; NaN where the number of classes is not known."""
        return 1 / self.curves.classes if self.curves.classes else math.nan

    @cached_property
    def at_chance(self) -> bool:
        """Whether validation accuracy is, at the end, no better than a guess."""
        rows = self.curves.validation_rows or 1000
        margin = self.limits.chance_margin + self.limits.standard_errors * math.sqrt(
            self.chance * (1 - self.chance) / rows
        )
        return bool(self.last(self.validation) <= self.chance + margin)

    @cached_property
    def learned(self) -> float:
        """Accuracy on training images between chance (0) and perfect (1)."""
        return (self.last(self.training) - self.chance) / (1 - self.chance)

    def error(self, accuracy: float) -> float:
        """The binomial standard error of an accuracy on the validation split."""
        rows = self.curves.validation_rows or 1000
        return math.sqrt(max(accuracy * (1 - accuracy), 1 / rows) / rows)

    @cached_property
    def gap(self) -> float:
        return self.last(self.training) - self.last(self.validation)

    @cached_property
    def rise(self) -> float:
        """What validation accuracy gained over the second half of the epochs, by the line through it."""
        half = self.curves.epochs["epoch"] > self.length / 2
        x, y = self.curves.epochs["epoch"][half], self.validation[half]
        return slope(x, y) * float(x[-1] - x[0]) if len(x) > 1 else 0.0

    @cached_property
    def best_epoch(self) -> int:
        return int(self.curves.epochs["epoch"][int(np.nanargmax(self.validation))])
