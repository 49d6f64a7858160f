"""Every number that a diagnosis turns on: its name, its default, and why it is what it is.

The numbers were set on runs over the bundled digits (seeds 0 to 3) and a CIFAR-10 subset (seeds 0 to 2). What went
wrong on seeds 11 to 43 then changed some rules; the table in `tests/benchmarks/diagnosis.md` is of later seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _number(default: float, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the rules; `reasons()` says why each is what it is."""

    few_epochs: float = _number(3, "with fewer epochs every curve is still falling, whatever is wrong")
    standard_errors: float = _number(
        3.0, "a difference of two accuracies counts beyond three binomial standard errors: one false alarm in 400 looks"
    )
    chance_margin: float = _number(
        0.01, "added to chance, since a network that only favours the largest class sits a little above it"
    )

    spike: float = _number(
        1.3, "a step's loss above this many times the loss at the start: random batches alone stayed below 1.2"
    )
    climb: float = _number(
        0.25,
        "rise of the smoothed loss above its lowest, in units of the loss at the start; warm restarts rise by 0.15",
    )
    wild_update: float = _number(
        0.03, "|Δw|/|w| per step: 0.005 to 0.012 in the middle of healthy runs, 0.04 and up where nothing settles"
    )
    violent_update: float = _number(
        0.08, "largest |Δw|/|w| of a measured step: at most 0.05 in healthy runs, 0.1 and up where it kills a network"
    )
    above_guess: float = _number(
        1.015,
        "a loss that stays above ln(classes) by this factor is worse than no network: only wild updates hold it up",
    )
    no_fall: float = _number(
        0.02, "a smoothed loss that has not fallen by this share of its start has not fallen: noise is about 0.01"
    )
    steady_fall: float = _number(
        5.0, "slope of the loss over all steps in its standard errors: a straight fall, however small, is beyond 5"
    )
    no_update: float = _number(1e-6, "|Δw|/|w| per step: float32 cannot move most weights by less than about 1e-7")

    small_update: float = _number(
        5e-4, "|Δw|/|w| in the first quarter: 4e-3 and up in healthy runs, below 2e-4 where the rate was far too low"
    )
    healthy_update: float = _number(5e-3, "|Δw|/|w| that a rate is raised to: the middle of the healthy runs")
    fitted: float = _number(
        0.97, "clean training accuracy from which on there is nothing left to learn, so slowness is no fault"
    )

    warmed_up: float = _number(0.95, "the rate over its highest from which on a warmup is over, whatever its shape")
    flat_loss: float = _number(0.96, "a start is flat while the smoothed loss is above this share of its first value")
    flat_start: float = _number(
        0.05, "flat for at least this share of the run, warmup not counted; healthy runs leave the start within 0.03"
    )
    flat_steps: float = _number(100, "and for this many steps, or an epoch: 5 % of a short run is over in no time")
    sudden_fall: float = _number(
        0.25, "fall of the loss, as a share, within as long as it was flat (or 15 % of the run, if longer)"
    )

    rate_is_high: float = _number(0.5, "the rate at the end over its highest: no decay worth the name has happened")
    plateau_span: float = _number(0.5, "the share of the run, from the end, over which a plateau must hold")
    plateau_fall: float = _number(
        0.15,
        "fall of the mean loss between the two halves of that span, as a share: where weights are thrown about, "
        "the mean itself wavers by 0.1; a run that still learns at a high rate fell by 0.2 and more",
    )
    plateau_update: float = _number(
        8e-3, "|Δw|/|w| at the end: below it the weights have settled and a lower rate has nothing to gain"
    )

    rate_dropped: float = _number(0.3, "a drop is where the rate falls below this share of its highest for good")
    early_drop: float = _number(0.35, "a drop before this share of the run is early; step schedules drop from 0.5 on")
    slowed: float = _number(0.2, "after an early drop the loss falls at less than this share of its speed before")

    wide_noise: float = _number(
        0.12, "standard deviation of the loss around its average, second half, over the loss at the start: healthy 0.05"
    )

    still_rising: float = _number(
        0.02, "gain of validation accuracy over the second half, by the line through it, beyond its standard errors"
    )
    still_falling: float = _number(
        0.12, "fall of the training loss over the last quarter, as a share; decayed healthy runs fell by 0.06 at most"
    )

    gap: float = _number(0.05, "training above validation accuracy; 0.02 and less on healthy digits")
    gap_share: float = _number(
        0.3, "the gap as a share of the validation error: what more regularisation could at best win back"
    )
    turned_down: float = _number(1.25, "validation loss at the end over its lowest, where it has also lost accuracy")

    low: float = _number(
        0.33,
        "accuracy on training images between chance (0) and perfect (1) below which a network is said to be too small",
    )

    @classmethod
    def reasons(cls) -> dict[str, str]:
        """Why each threshold is what it is, by its name."""
        return {each.name: each.metadata["reason"] for each in fields(cls)}


DEFAULT = Thresholds()
