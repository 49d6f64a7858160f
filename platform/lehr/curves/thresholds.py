"""Every number that a diagnosis depends on: its name, its default, and the reason for it.

The numbers were set on runs over the bundled digits (seeds 0 to 3) and a CIFAR-10 subset (seeds 0 to 2). Mistakes on
seeds 11 to 43 then changed some rules; the table in `tests/benchmarks/diagnosis.md` is of later seeds. Those of rows,
network, short runs and small sets were set on the cases for development of `tests/benchmarks/practice`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


def _number(default: float, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the rules; `reasons()` explains each.

    `|Δw|/|w|` is the norm of an update over the norm of the weights.
    """

    few_epochs: float = _number(3, "with fewer epochs every curve is still falling, whatever is wrong")
    few_steps: float = _number(
        100, "with fewer steps a sound network may still be where it began: it took up to 300 on shapes and textures"
    )
    standard_errors: float = _number(
        3.0,
        "a difference of two accuracies counts beyond three binomial standard errors: one false alarm in 400 readings",
    )
    worth: float = _number(0.03, "accuracy that mending something must be able to gain for it to be worth a verdict")
    chance_margin: float = _number(
        0.01, "added to chance level, since a network that only prefers the largest class is slightly above it"
    )

    beyond_guess: float = _number(
        0.1,
        "accuracy from a guess (0) to perfect (1) that the interval must exclude for a network to be told as a guess: "
        "on few rows, not to see a difference is no sign that there is none",
    )

    spike: float = _number(
        1.3, "a step's loss above this many times the initial loss: random batches alone stayed below 1.2"
    )
    climb: float = _number(
        0.25,
        "rise of the smoothed loss above its minimum, in units of the initial loss; warm restarts rise by 0.15",
    )
    still_a_guess: float = _number(1.01, "a last loss below this times that of a guess is noise around a guess")
    mute: float = _number(
        0.025,
        "relative distance of the loss before the first update from that of a guess: up to 0.025 with weights of a "
        "hundredth to half the usual size, and mostly 0.04 and more where a signal passes through convolutions",
    )
    quiet: float = _number(
        0.3,
        "norm of the first gradients: up to 0.3 with weights of a hundredth to half the usual size, 0.4 and more in "
        "nine of ten sound networks of every kind",
    )
    clear_fall: float = _number(0.1, "fall of the loss after a flat start without a signal: what follows is no noise")
    wild_update: float = _number(
        0.03, "|Δw|/|w| per step: 0.005 to 0.012 in the middle of healthy runs, 0.04 and up where nothing converges"
    )
    violent_update: float = _number(
        0.08, "largest measured |Δw|/|w|: at most 0.05 in healthy runs, 0.1 and up where one update ruins a network"
    )
    no_fall: float = _number(
        0.02, "a smoothed loss has not fallen unless it lost this share of its initial value: noise is about 0.01"
    )
    steady_fall: float = _number(
        5.0, "slope of the loss over all steps, in standard errors: a steady fall, however small, is beyond 5"
    )
    no_update: float = _number(1e-6, "|Δw|/|w| per step: float32 cannot change most weights by less than about 1e-7")

    moved: float = _number(
        0.1, "|Δw|/|w| of all steps together: weights that moved by less than a tenth are still what they were"
    )
    small_update: float = _number(
        5e-4, "|Δw|/|w| in the first quarter: 4e-3 and up in healthy runs, below 2e-4 at a far too low learning rate"
    )
    modest_update: float = _number(
        1.25e-3, "|Δw|/|w| in the first quarter below which a network that learned nothing had too low a rate"
    )
    usual_rate: float = _number(
        8.0, "the optimizer's usual learning rate over the job's: a network that has not learned needs a higher one"
    )
    healthy_update: float = _number(
        5e-3, "|Δw|/|w| that a higher learning rate should reach: the middle of healthy runs"
    )
    fitted: float = _number(
        0.97, "clean training accuracy above which there is nothing left to learn, so that slow learning is no problem"
    )

    warmed_up: float = _number(0.95, "share of the highest learning rate at which a warmup of any shape is over")
    flat_loss: float = _number(0.96, "the start is flat while the smoothed loss is above this share of its first value")
    flat_start: float = _number(
        0.05, "flat for at least this share of the run, without warmup; healthy runs leave the start within 0.03"
    )
    overcome: float = _number(
        0.9, "training accuracy, from chance (0) to perfect (1), of a network that learned its rows"
    )
    flat_and_overcome: float = _number(
        0.2, "the same for a network that learned its rows in the end: what was lost is the time"
    )
    flat_steps: float = _number(100, "and for this many steps, or an epoch: 5 % of a short run is only a few steps")
    sudden_fall: float = _number(
        0.25, "fall of the loss, as a share, within as long as it was flat (or 15 % of the run, if longer)"
    )

    rate_is_high: float = _number(0.5, "learning rate at the end over its highest: it has not decayed substantially")
    plateau_span: float = _number(0.5, "share of the run, from the end, over which a plateau must hold")
    plateau_fall: float = _number(
        0.15,
        "fall of the mean loss between the two halves of that span, as a share: with large updates the mean itself "
        "varies by 0.1; runs that still learned at a high learning rate fell by 0.2 and more",
    )
    plateau_update: float = _number(
        8e-3, "|Δw|/|w| at the end: below it the weights have converged, and decay has nothing to gain"
    )

    rate_dropped: float = _number(
        0.3, "the learning rate has dropped where it stays below this share of its highest value"
    )
    early_drop: float = _number(0.35, "a drop before this share of the run is early; step schedules drop from 0.5 on")
    gone: float = _number(0.02, "learning rate of most of a run over its highest: with that little nothing is learned")
    slowed: float = _number(0.2, "after an early drop the loss falls at less than this share of its speed before")

    wide_noise: float = _number(
        0.12,
        "standard deviation of the loss around its average, second half, over the initial loss: 0.05 in healthy runs",
    )

    still_rising: float = _number(
        0.02, "gain of validation accuracy over the second half, by a fitted line, beyond its standard errors"
    )
    late_progress: float = _number(
        0.1, "fall of the validation loss over the second half, as a share, up to its minimum at the end"
    )
    slow_progress: float = _number(
        0.015, "the same where accuracy has not left chance level: there it falls slowly at first"
    )
    at_minimum: float = _number(1.02, "validation loss over its minimum, up to which it has not begun to rise")
    surer: float = _number(0.95, "validation loss over that of a guess, below which the network has learned something")
    overfit: float = _number(0.1, "training accuracy above validation accuracy from which on it is called overfitting")
    worse_than_guess: float = _number(1.25, "validation loss over that of a guess: a network that is sure, and wrong")

    gap: float = _number(0.05, "training accuracy above validation accuracy; 0.02 and less on healthy digits")
    gap_share: float = _number(
        0.3, "the gap as a share of the validation error: the most that regularisation could win back"
    )
    turned_down: float = _number(1.25, "validation loss at the end over its minimum, where accuracy was lost too")

    blank: float = _number(0.05, "share of blank images: real sets have a few, a reader that fails has many")
    repeated: float = _number(0.3, "share of images that repeat another one: small sets are sometimes oversampled")
    shared: float = _number(
        0.02, "share of validation images that are training images: public sets have up to about 1 %"
    )
    imbalance: float = _number(10.0, "rows of the most frequent class over those of the rarest")
    beyond_majority: float = _number(
        0.9,
        "accuracy from that of the most frequent class (0) to perfect (1) above which the rare classes are right too",
    )
    differing_errors: float = _number(
        4.0, "difference of two accuracies of one model on two splits, in standard errors"
    )
    differing_drop: float = _number(0.07, "and that difference itself: splits by place or time differ by a few points")
    moved_mean: float = _number(0.4, "difference of the mean pixel of two splits, in deviations of the training pixels")
    other_contrast: float = _number(1.6, "deviation of the pixels of one split over that of the other")

    stale: float = _number(1.5, "loss of training rows in evaluation over that in training; at most 1.1 in sound runs")
    stale_excess: float = _number(0.15, "and that difference itself, in units of the loss of a guess")
    loud: float = _number(
        4.0, "loss before the first update over that of a guess: 1 to 1.3 with the usual initialization"
    )
    trained: float = _number(0.5, "share of the weights below which most of a network is not trained")
    kept_gradient: float = _number(0.1, "share of the median gradient that clipping leaves")
    forgetting: float = _number(
        4e-3, "share of the weights that decay takes at each step: 5e-4 in the usual recipes of residual networks"
    )
    usual_decay: float = _number(5e-3, "weight decay up to which a high learning rate is to blame, not the decay")
    usual_decoupled_decay: float = _number(0.3, "the same for AdamW and its like: vision transformers use up to 0.3")
    dropped: float = _number(0.7, "dropout: 0.5 was usual for wide layers, 0.8 and up leave too little")
    smoothed: float = _number(0.5, "label smoothing: 0.1 is usual, above 0.5 most of the target says nothing")
    distorted: float = _number(
        3.0,
        "magnitude times operations of rand_augment, or the area that erasing takes, over what its paper uses at most",
    )
    augmented: float = _number(1.6, "loss of training rows as augmented over that of the same rows as they are")
    near_perfect: float = _number(0.05, "error on validation rows below which a run is called healthy")

    low: float = _number(
        0.33,
        "training accuracy, from chance level (0) to perfect (1), below which a network is called too small",
    )

    healthy: float = _number(
        0.5,
        "validation accuracy, from chance level (0) to perfect (1), up to which no run is called healthy",
    )

    def chance_level(self, chance: float, rows: int) -> float:
        """The accuracy up to which a network is at chance level, measured on `rows` rows; `chance` is 1 / classes.

        Three standard errors above chance, but no more than halfway to perfect: a few rows cannot tell a good network
        from a guess, and what they show then is not called one.
        """
        error = math.sqrt(chance * (1 - chance) / rows)
        return chance + min(self.chance_margin + self.standard_errors * error, (1 - chance) / 2)

    @classmethod
    def reasons(cls) -> dict[str, str]:
        """The reason for each threshold, by its name."""
        return {each.name: each.metadata["reason"] for each in fields(cls)}


DEFAULT = Thresholds()
