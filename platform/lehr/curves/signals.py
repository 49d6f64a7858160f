"""What the rules read: a handful of numbers, measured once on the curves of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lehr.curves.record import Curves
from lehr.curves.thresholds import Thresholds
from lehr.intervals import in_words, interval
from lehr.reporting.smoothing import Floats, slope, smooth
from lehr.runs import DataSurvey, NetworkSurvey

GRID = 200  # intervals of the run, at whose ends the smoothed loss is read
SPAN = 1 / 25  # window of the smoothed loss, as a share of the run
LAST, LAST_STEPS = 0.04, 8  # share of a run, and least number of steps, whose mean loss is the one at the end
LEAST_LOSS = 1e-12  # stands for a first loss of 0, by which others are divided
USUAL_VALIDATION_ROWS = 1000  # where the run does not say


@dataclass(frozen=True)
class Signals:
    """Measures of the curves. A `share` is a position in the run, from 0 to 1 of its recorded epochs."""

    curves: Curves
    limits: Thresholds

    # ── the training loss ───────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def length(self) -> float:
        """Epochs recorded."""
        return self.curves.last_epoch

    @cached_property
    def grid(self) -> Floats:
        """The epochs at which `loss` and `learning_rate` are read [GRID + 1]."""
        return np.linspace(0.0, self.length, GRID + 1)

    @cached_property
    def loss(self) -> Floats:
        """The smoothed training loss on the grid."""
        span = max(SPAN * self.length, 5 / self.curves.steps_per_epoch)
        steps = self.curves.steps  # the last batch of an epoch may be tiny, and counts for as much
        return smooth(steps["epoch"], steps["loss"], self.grid, span, steps.get("examples"))

    @property
    def steps_taken(self) -> int:
        """Steps recorded: the number of the last one."""
        return int(self.curves.steps["step"][-1]) + 1

    @cached_property
    def peak(self) -> float:
        """The highest loss of a step after the first, over the initial loss."""
        losses = self.curves.steps["loss"][1:][self.whole[1:]]
        return float(np.nanmax(losses, initial=0.0)) / self.initial_loss

    @property
    def loss_window(self) -> float:
        """Steps in the window of the smoothed loss."""
        return self.length * self.curves.steps_per_epoch / 25

    def loss_at(self, share: float) -> float:
        """The smoothed training loss at a share of the run."""
        return float(self.loss[round(share * GRID)])

    @property
    def last_loss(self) -> float:
        """The training loss at the end: no more than the mean of the last steps, since one odd batch is no rise."""
        last = max(LAST, LAST_STEPS / self.steps_taken)
        return min(self.loss_at(1.0), self.mean_loss(max(0.0, 1.0 - last), 1.0))

    @cached_property
    def initial_loss(self) -> float:
        """The loss before the first update: a learning rate that is far too high ruins it within a step or two."""
        known = self.curves.steps["loss"][np.isfinite(self.curves.steps["loss"])]
        return (float(known[0]) or LEAST_LOSS) if len(known) else math.nan

    @property
    def is_short(self) -> bool:
        """Whether the run has so few steps that a sound network may still be where it began."""
        return self.steps_taken < self.limits.few_steps

    @cached_property
    def is_mute(self) -> bool:
        """Whether the initial weights pass no signal: the first loss is that of a guess, and gradients are small too.

        The loss alone does not tell: that of many sound networks begins there.
        """
        near = abs(self.initial_loss / self.chance_loss - 1) < self.limits.mute if self.chance_loss > 0 else False
        return near and not self.early_gradient >= self.limits.quiet

    @cached_property
    def early_gradient(self) -> float:
        """The median norm of the gradients of the first tenth of the run; NaN where it was not measured."""
        x, y = self.curves.steps["epoch"], self.curves.steps.get("gradient_norm", np.empty(0))
        early = y[(x <= max(0.1 * self.length, x[0])) & np.isfinite(y)] if len(y) else y
        return float(np.median(early)) if len(early) else math.nan

    @cached_property
    def blown_up(self) -> float:
        """How far the smoothed loss rose above its first value within the first half, in units of that value."""
        early = self.loss[: GRID // 2 + 1]
        return float(np.nanmax(early, initial=0.0)) / self.initial_loss - 1

    @cached_property
    def whole(self) -> NDArray[np.bool_]:
        """The steps of batches of the usual size: the loss of a last batch of a few rows may be anything [steps]."""
        examples = self.curves.steps.get("examples", np.ones(len(self.curves.steps["step"])))
        return ~(examples < 0.5 * np.nanmedian(examples))

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the loss around its moving average in the second half, over the initial loss."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        late = (x >= self.length / 2) & self.whole
        residuals = (y - np.interp(x, self.grid, self.loss))[late]
        residuals = residuals[np.isfinite(residuals)]
        return float(residuals.std()) / self.initial_loss if len(residuals) > 2 else 0.0

    @cached_property
    def excess_over_guess(self) -> float:
        """How surely the loss of the second half is above that of a guess: their distance in standard errors."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        late = y[(x >= self.length / 2) & self.whole & np.isfinite(y)]
        error = float(late.std()) / math.sqrt(len(late)) if len(late) else 0.0
        return (float(late.mean()) - self.chance_loss) / error if error else 0.0

    @cached_property
    def trend(self) -> float:
        """How surely the loss falls: minus the slope of the line through all steps, in its standard errors."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        known = np.isfinite(y)
        x, y = x[known], y[known]
        falls = -slope(x, y)
        residuals = y + falls * x
        spread = math.sqrt(float(((x - x.mean()) ** 2).sum())) if len(x) else 0.0
        error = float(residuals.std()) / spread if spread else 0.0
        return falls / error if error else 0.0

    def mean_loss(self, begin: float, end: float) -> float:
        """The mean training loss of the steps between two shares of the run."""
        x, y = self.curves.steps["epoch"], self.curves.steps["loss"]
        return float(np.nanmean(y[(x >= begin * self.length) & (x <= end * self.length)]))

    def fall(self, begin: float, end: float) -> float:
        """The fall of the smoothed loss between two shares of the run, as a share of its value at the first."""
        before, after = self.loss_at(begin), self.loss_at(end)
        return (before - after) / before if before > 0 else 0.0

    @property
    def loss_scale(self) -> float:
        """1 for a loss of ordinary size, less for one near zero, where noise means nothing."""
        return min(1.0, self.loss_at(0.5) / (0.02 * self.initial_loss))

    def step_of(self, epoch: float) -> int:
        return round(epoch * self.curves.steps_per_epoch)

    # ── updates and the learning rate ───────────────────────────────────────────────────────────────────────────────

    def update_ratio(self, begin: float, end: float) -> float:
        """The median of |Δw|/|w| between two shares of the run; NaN where it was not measured."""
        x, y = self.curves.steps["epoch"], self.curves.steps["update_ratio"]
        inside = y[(x >= begin * self.length) & (x <= end * self.length) & np.isfinite(y)]
        return float(np.median(inside)) if len(inside) else math.nan

    @cached_property
    def largest_update_ratio(self) -> float:
        known = self.curves.steps["update_ratio"][np.isfinite(self.curves.steps["update_ratio"])]
        return float(known.max()) if len(known) else math.nan

    @cached_property
    def learning_rate(self) -> Floats:
        """The learning rate on the grid."""
        return np.interp(self.grid, self.curves.steps["epoch"], self.curves.steps["learning_rate"])

    @cached_property
    def warmup_share(self) -> float:
        """The share of the run that is warmup: until the learning rate first comes close to its highest value."""
        highest = self.learning_rate.max()
        return float(np.argmax(self.learning_rate >= self.limits.warmed_up * highest)) / GRID

    @cached_property
    def drop_share(self) -> float | None:
        """Where the learning rate drops below `rate_dropped` of its highest value for good; None if it never does."""
        high = np.flatnonzero(self.learning_rate >= self.limits.rate_dropped * self.learning_rate.max())
        last = int(high[-1])
        return None if last >= GRID else last / GRID

    @cached_property
    def is_restless(self) -> bool:
        """Whether updates are large to the end: then the network of an epoch's end is one of many, good and bad."""
        high = self.learning_rate[-1] >= self.limits.rate_is_high * self.learning_rate.max()
        return bool(high and self.update_ratio(0.5, 1.0) >= self.limits.healthy_update)

    def dropped_before(self, share: float) -> bool:
        return self.drop_share is not None and self.drop_share <= share

    # ── accuracies ──────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def validation(self) -> Floats:
        return self.curves.epoch_column("validation_accuracy")

    @cached_property
    def training(self) -> Floats:
        """Accuracy on clean training images in evaluation mode; the running accuracy of the epoch would be lower."""
        return self.curves.epoch_column("clean_train_accuracy", "train_accuracy")

    @property
    def on_training_rows(self) -> str:
        """The accuracy at the end, as `told_of_training` has it."""
        return self.told_of_training(self.final(self.training))

    @staticmethod
    def told_of_training(value: float) -> str:
        """`98.0% on training rows`; that it was not measured there, with `train.evaluated_training_rows: 0`."""
        return "not measured on training rows" if math.isnan(value) else f"{value:.1%} on training rows"

    def final(self, values: Floats) -> float:
        """The mean of the last known values, three at most: a single epoch is too noisy.

        Fewer in a short run, where three epochs earlier the network was a different one.
        """
        known = values[np.isfinite(values)]
        return float(known[-max(1, min(3, len(known) // 3)) :].mean()) if len(known) else math.nan

    def last(self, values: Floats) -> float:
        """The last known value, as the run's own lines show it; NaN where there is none."""
        known = values[np.isfinite(values)]
        return float(known[-1]) if len(known) else math.nan

    def best(self, values: Floats) -> float:
        """The highest mean of three consecutive epochs; `final` where there are fewer."""
        known = values[np.isfinite(values)]
        if len(known) < 3:
            return self.final(known)
        return float(np.convolve(known, np.full(3, 1 / 3), "valid").max())

    @property
    def chance_loss(self) -> float:
        """The loss while the network tells nothing apart: ln(classes) for cross entropy; NaN where it is not known."""
        return self.curves.chance_loss

    @cached_property
    def positive(self) -> bool:
        """Whether the loss is never below zero. Of one that may be, no share means anything."""
        own = ":" in str(self.curves.option("loss.name", ""))  # none of ours is
        return not own or not (self.curves.steps["loss"] < 0).any()

    @cached_property
    def chance(self) -> float:
        """Accuracy of a guess; NaN where the number of classes is not known."""
        return 1 / self.curves.classes if self.curves.classes else math.nan

    @property
    def validation_rows(self) -> int:
        return self.curves.validation_rows or USUAL_VALIDATION_ROWS

    @cached_property
    def guess(self) -> float:
        """Accuracy without a look at the image: of a guess, or of always saying the most frequent class if higher."""
        return float(np.fmax(self.chance, self.majority))

    @cached_property
    def at_chance(self) -> bool:
        """Whether validation accuracy ends at chance level."""
        return bool(self.final(self.validation) <= self.limits.chance_level(self.guess, self.validation_rows))

    @cached_property
    def may_be_better(self) -> bool:
        """Whether validation rows are too few to show that the network is at chance level, though it may be."""
        most = self.guess + self.limits.beyond_guess * (1 - self.guess)
        return interval(self.final(self.validation), self.validation_rows)[1] > most

    @cached_property
    def never_learned(self) -> bool:
        """Whether validation accuracy never left chance level, by the mean of three epochs."""
        level = self.limits.chance_level(self.guess, self.validation_rows)
        return self.at_chance and bool(self.best(self.validation) <= level) and not self.is_surer

    @cached_property
    def is_surer(self) -> bool:
        """Whether the validation loss is clearly below that of a guess: it shows what few rows do not by accuracy."""
        losses = self.curves.epoch_column("validation_loss")
        return bool(self.best(-losses) > -self.limits.surer * self.guess_loss) if self.positive else False

    @cached_property
    def guess_loss(self) -> float:
        """The validation loss of naming classes as often as training rows have them; NaN where it is not known."""
        train, validation = np.array(self.survey.train.counts), np.array(self.survey.validation.counts)
        if not len(train) or len(train) != len(validation) or not validation.sum() or len(train) < 2:
            return self.chance_loss
        often = np.log(np.maximum(train, 0.5) / train.sum())
        return self.chance_loss * float(-(validation @ often) / validation.sum()) / math.log(len(train))

    @cached_property
    def has_begun(self) -> bool:
        """Whether the network has learned something of its training rows: they are right more often than by a guess."""
        most = int(self.curves.option("train.evaluated_training_rows", USUAL_VALIDATION_ROWS))
        rows = max(1, min(most, self.validation_rows, self.survey.train.rows or most))
        return bool(self.final(self.training) > self.limits.chance_level(self.guess, rows))

    @cached_property
    def is_memorised(self) -> bool:
        """Whether what it learned of training rows holds for no others: far more are right, or their loss only rose."""
        worse = self.late("validation_loss") > self.limits.worse_than_guess * self.chance_loss
        return self.has_begun and bool(self.learned >= self.limits.healthy or worse)

    @cached_property
    def learned(self) -> float:
        """Accuracy on training images, from chance level (0) to perfect (1)."""
        return (self.final(self.training) - self.chance) / (1 - self.chance)

    def standard_error(self, accuracy: float) -> float:
        """The binomial standard error of an accuracy on the validation split."""
        return math.sqrt(max(accuracy * (1 - accuracy), 1 / self.validation_rows) / self.validation_rows)

    def told(self, accuracy: float) -> str:
        """An accuracy on the validation split with its 95 % interval."""
        return in_words(accuracy, self.validation_rows)

    @cached_property
    def gap(self) -> float:
        """Training accuracy minus validation accuracy, at the end."""
        return self.final(self.training) - self.final(self.validation)

    @cached_property
    def late_progress(self) -> float:
        """The fall of the validation loss over the second half, as a share, where it ends at its minimum; else 0.

        Where it does, more epochs like the last ones would have made the network better.
        """
        losses = self.curves.epoch_column("validation_loss")
        losses = losses[np.isfinite(losses)]
        if len(losses) < 3 or not self.positive or losses.min() <= 0:
            return 0.0
        few, middle = max(1, len(losses) // 5), (len(losses) - 1) // 2
        before, after = float(losses[middle : middle + few].mean()), float(losses[-few:].mean())
        return 1 - after / before if losses[-1] <= self.limits.at_minimum * losses.min() else 0.0

    @cached_property
    def is_improving(self) -> bool:
        """Whether the network is still getting better on validation rows at the end, at whatever learning rate."""
        early = self.at_chance or self.is_short
        least = self.limits.slow_progress if early else self.limits.late_progress
        rose = self.late_gain > max(self.limits.still_rising, 3 * self.standard_error(self.final(self.validation)))
        return self.late_progress > (0.0 if rose else least)

    @cached_property
    def late_gain(self) -> float:
        """The gain of validation accuracy over the second half of the epochs, by a fitted line."""
        half = self.curves.epochs["epoch"] > self.length / 2
        x, y = self.curves.epochs["epoch"][half], self.validation[half]
        return slope(x, y) * float(x[-1] - x[0]) if len(x) > 1 else 0.0

    # ── what was known before training ──────────────────────────────────────────────────────────────────────────────

    @property
    def survey(self) -> DataSurvey:
        """Of the rows; an empty one where the run did not record it."""
        return self.curves.survey

    @property
    def network(self) -> NetworkSurvey:
        """Of the network at its first step; an empty one where the run did not record it."""
        return self.curves.network

    @property
    def is_tiny(self) -> bool:
        """Whether the network has fewer weights than there are training rows; one with more can learn them by heart.

        Zhang et al., "Understanding deep learning requires rethinking generalization", 2017.
        """
        return 0 < self.network.parameters < self.survey.train.rows

    @cached_property
    def majority(self) -> float:
        """Accuracy of always saying the most frequent class of the training rows, on validation rows; NaN: unknown."""
        train, validation = self.survey.train.counts, self.survey.validation.counts
        if not train or len(train) != len(validation) or not sum(validation):
            return math.nan
        return validation[int(np.argmax(train))] / sum(validation)

    @cached_property
    def is_fitted(self) -> bool:
        """Whether the network fits its training rows, so that nothing kept it from learning."""
        return self.final(self.training) >= self.limits.fitted

    @cached_property
    def is_near_perfect(self) -> bool:
        """Whether nearly all validation rows are right."""
        validation = self.final(self.validation)
        return 1 - validation <= max(self.limits.near_perfect, self.standard_error(validation))

    @cached_property
    def has_room(self) -> bool:
        """Whether validation rows could tell a better run from this one's best epoch.

        If not, no cause of lost accuracy can be claimed: nobody could measure that mending it helps.
        """
        return 1 - self.kept > self.least_gain

    @property
    def kept(self) -> float:
        """Validation accuracy of the best epoch."""
        return float(np.nanmax(self.validation, initial=0.0))

    @property
    def least_gain(self) -> float:
        """The least gain of validation accuracy that is worth a verdict, and that these rows can tell from chance."""
        return max(self.limits.worth, self.limits.standard_errors * self.standard_error(self.kept))

    @cached_property
    def is_beaten(self) -> bool:
        """Whether a linear model on small images does clearly better on validation rows than the network."""
        linear, best = self.survey.linear, self.kept
        if linear is None or linear <= self.limits.chance_level(self.guess, self.validation_rows):
            return False
        return linear > best + 3 * math.hypot(self.standard_error(linear), self.standard_error(best))

    def late(self, name: str) -> float:
        """The median of an epoch column over the last third of the epochs; NaN where it was not measured."""
        column = self.curves.epoch_column(name)
        return float(np.nanmedian(column[-max(1, len(column) // 3) :])) if len(column) else math.nan

    @cached_property
    def best_epoch(self) -> int:
        return int(self.curves.epochs["epoch"][int(np.nanargmax(self.validation))])
