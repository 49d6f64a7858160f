"""When a trial has shown enough to be ended: pure functions of what the trials have measured so far.

A score is a metric turned so that higher is better. Trials are compared by their best score up to an epoch, because a
run is judged by its best model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median

from lehr.job.search import Stopping


def rungs(stopping: Stopping, epochs: int) -> list[int]:
    """The epochs after which ASHA compares trials: first, first × factor, first × factor², … below `epochs`."""
    if stopping.name != "asha":
        return []
    found, rung = [], stopping.first
    while rung < epochs:
        found.append(rung)
        rung *= stopping.factor
    return found


def asha_ends(score: float, others: Sequence[float], factor: int) -> bool:
    """Whether asynchronous successive halving (ASHA) ends a trial at a rung.

    The variant that stops trials instead of pausing them (Li et al., "A System for Massively Parallel Hyperparameter
    Tuning", 2020, section 3.3): of the trials that have reached the rung so far, the best one in `factor` continue, and
    the very best always does.

    Args:
        score: of this trial at the rung.
        others: of the trials that reached the rung before, in any order.
    """
    better = sum(other > score for other in others)
    return better >= promoted(len(others) + 1, factor)


def median_ends(score: float, others: Sequence[Sequence[float]], epoch: int, least: int) -> bool:
    """Whether a trial's best score is below the median of the other trials' mean scores up to the same epoch.

    The median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017, 3.2.1.

    Args:
        score: the best of this trial up to the epoch.
        others: of each other trial, its score after every epoch.
        epoch: counted from 1.
        least: how many other trials must have reached the epoch.
    """
    means = [mean(curve[:epoch]) for curve in others if len(curve) >= epoch]
    return len(means) >= least and score < median(means)


def reason_to_end(stopping: Stopping, curves: Mapping[int, Sequence[float]], number: int, epochs: int) -> str | None:
    """Why trial `number` ends after its latest epoch; None if it continues.

    Args:
        curves: of every trial, by number, its score after each epoch so far.
        epochs: the full length of a trial.
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
    at_rung = [max(curve[:epoch]) for curve in others if len(curve) >= epoch]
    if epoch in rungs(stopping, epochs) and asha_ends(score, at_rung, stopping.factor):
        count = len(at_rung) + 1
        return f"not among the best {promoted(count, stopping.factor)} of {count} at the rung of epoch {epoch}"
    return None


def promoted(count: int, factor: int) -> int:
    """How many of `count` trials at a rung continue: one in `factor`, and at least one."""
    return max(1, count // factor)


def epoch_bounds(stopping: Stopping, trials: int, epochs: int) -> tuple[int, int]:
    """(least, most) epochs of a search: if every trial ends as early as possible, and if none does.

    For ASHA, the least assumes that exactly one trial in `factor` continues at each rung.
    """
    spent, continuing, before = 0.0, float(trials), 0
    for rung in rungs(stopping, epochs):
        spent += continuing * (rung - before)
        continuing, before = max(1.0, continuing / stopping.factor), rung
    least = spent + continuing * (epochs - before)
    if stopping.name == "median":
        least = stopping.least * epochs + max(0, trials - stopping.least) * min(stopping.first, epochs)
    return min(round(least), trials * epochs), trials * epochs
