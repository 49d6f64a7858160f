"""When a trial has shown enough: pure functions of what trials have measured so far.

A score is a metric turned so that higher is better. What is compared is the best score that a trial has had up to an
epoch, since the best model is what it will be judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import mean, median

from lehr.job.search import Stopping


def rungs(stopping: Stopping, epochs: int) -> list[int]:
    """The epochs after which ASHA compares: first, first × factor, first × factor², … below the whole length."""
    if stopping.name != "asha":
        return []
    found, rung = [], stopping.first
    while rung < epochs:
        found.append(rung)
        rung *= stopping.factor
    return found


def asha_ends(score: float, others: Sequence[float], factor: int) -> bool:
    """Whether a trial that came to a rung is not among the best share of those that have come there by now.

    The rule of asynchronous successive halving that stops and never waits (Li et al., "A System for Massively Parallel
    Hyperparameter Tuning", 2020, section 3.3): one in `factor` goes on, and always the best.

    Args:
        score: of this trial at the rung.
        others: of the trials that were there before, in any order.
    """
    better = sum(other > score for other in others)
    return better >= max(1, (len(others) + 1) // factor)


def median_ends(score: float, others: Sequence[Sequence[float]], epoch: int, least: int) -> bool:
    """Whether a trial's best is below the median of the others' average scores up to the same epoch.

    The median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017, 3.2.1.

    Args:
        score: the best of this trial up to the epoch.
        others: of each other trial, its score after every epoch.
        epoch: counted from 1.
        least: how many others must have come as far.
    """
    averages = [mean(curve[:epoch]) for curve in others if len(curve) >= epoch]
    return len(averages) >= least and score < median(averages)


def reason_to_end(stopping: Stopping, curves: Mapping[int, Sequence[float]], number: int, epochs: int) -> str | None:
    """Why the trial of this number ends after its last epoch; None where it goes on.

    Args:
        curves: of every trial, by number, its score after each epoch so far.
        epochs: the whole length of a trial.
    """
    epoch = len(curves[number])
    if epoch >= epochs or stopping.name == "none":
        return None
    score = max(curves[number])
    others = [curve for other, curve in curves.items() if other != number]
    if stopping.name == "median":
        if epoch >= stopping.first and median_ends(score, others, epoch, stopping.least):
            return f"below the median of the other trials after epoch {epoch}"
        return None
    at_rung = [list(accumulate(curve, max))[epoch - 1] for curve in others if len(curve) >= epoch]
    if epoch in rungs(stopping, epochs) and asha_ends(score, at_rung, stopping.factor):
        return f"not among the best {share(len(at_rung) + 1, stopping.factor)} at the rung of epoch {epoch}"
    return None


def share(count: int, factor: int) -> str:
    """`2 of 7`: how many of so many trials go on."""
    return f"{max(1, count // factor)} of {count}"


def expected_epochs(stopping: Stopping, trials: int, epochs: int) -> tuple[int, int]:
    """(least, most) epochs of a search: if every trial ends as early as it may, and if none does.

    The least is what ASHA would come to if exactly one in `factor` went on at each rung.
    """
    spent, going, before = 0.0, float(trials), 0
    for rung in rungs(stopping, epochs):
        spent += going * (rung - before)
        going, before = max(1.0, going / stopping.factor), rung
    least = spent + going * (epochs - before)
    if stopping.name == "median":
        least = stopping.least * epochs + max(0, trials - stopping.least) * min(stopping.first, epochs)
    return min(round(least), trials * epochs), trials * epochs
