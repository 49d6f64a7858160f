"""What the evaluation of an ensemble means, in sentences: whether the ensemble was worth it, and if not, why."""

from __future__ import annotations

from lehr.ensembles.evaluation import EnsembleEvaluation, ModelMetrics
from lehr.ensembles.metrics import Difference
from lehr.intervals import in_words

SHORT_CYCLE = 40  # epochs; the gains in the snapshot paper come from cycles of 40 and more
MEMBER_WORD = {"snapshot": "snapshot", "independent": "member", "average": "set of weights"}
BASELINE_NAME = {"snapshot": "single network", "independent": "single network", "average": "raw weights"}
"""By method, what the ensemble is compared with."""


def verdict(found: EnsembleEvaluation, method: str, cycle_epochs: float | None = None) -> list[str]:
    """The evaluation in sentences; the first is the short answer.

    Args:
        method: the job's `method`.
        cycle_epochs: epochs of the shortest cycle, for snapshots.
    """
    result = (
        f"{_members_used(found, method)}: {_told(found.ensemble, found)} error on {found.rows:,} {found.split} rows"
    )
    if found.baseline is None or found.difference is None:
        best = found.members[found.best_member]
        return [f"{result}; the best member alone: {_told(best, found)}.{_unclear(found)}"]
    baseline = (
        "the raw weights" if method == "average" else "one network trained for as many epochs with one cosine schedule"
    )
    sentences = [
        f"{result}; {baseline}: {_told(found.baseline, found)}.",
        _comparison(found.difference, BASELINE_NAME[method]),
    ]
    gained = found.difference.mean < 0
    if method == "snapshot" and cycle_epochs is not None and cycle_epochs < SHORT_CYCLE and not gained:
        sentences.append(
            f"Cycles of {cycle_epochs:g} epochs are short: each snapshot should come close to convergence. Published "
            f"gains were measured with cycles of {SHORT_CYCLE} epochs or more. Use fewer and longer cycles, or a "
            "single network."
        )
    if method == "independent" and not gained:
        sentences.append(
            "Each member was trained on only its share of the budget. Independent members pay off when each has the "
            "whole budget."
        )
    if found.split == "validation":
        sentences.append(
            "There is no test split: the weights were chosen on these same rows, so the figures are slightly "
            "optimistic."
        )
    return sentences


def _told(model: ModelMetrics, found: EnsembleEvaluation) -> str:
    """The error of a model, with its interval."""
    return in_words(model.error, found.rows)


def _unclear(found: EnsembleEvaluation) -> str:
    """A sentence where the rows cannot tell the ensemble from its best member; else empty."""
    gain = found.gains[found.best_member]
    if gain.clear or gain == Difference(0.0, 0.0):
        return ""
    return f" {found.rows:,} rows cannot tell these two apart."


def _members_used(found: EnsembleEvaluation, method: str) -> str:
    """Which members have a weight, such as `The last 2 of 5 snapshots combined`."""
    total, used, word = len(found.names), found.used, MEMBER_WORD[method]
    plural = "sets of weights" if method == "average" else f"{word}s"
    last = method == "snapshot" and used < total and bool((found.weights[-used:] > 0).all())
    if used == 1:
        name = found.names[found.weights.argmax()]
        if method == "average":
            return f"The {'raw weights' if name == 'raw' else f'{name} average'} alone"
        return "The last snapshot alone" if last else f"{word.capitalize()} {name} alone"
    if used == total:
        return f"{'Both' if total == 2 else f'All {total}'} {plural} combined"
    return f"The last {used} of {total} {plural} combined" if last else f"{used} of {total} {plural} combined"


def _comparison(difference: Difference, baseline: str) -> str:
    """The ensemble against the baseline."""
    if difference == Difference(0.0, 0.0):
        return "Both are right and wrong on exactly the same rows: nothing was gained."
    points, spread = 100 * difference.mean, 200 * difference.standard_error
    size = f"The ensemble is {abs(points):.2f} points {'better' if points < 0 else 'worse'}"
    size += f" (± {spread:.2f}, two standard errors)"
    if not difference.clear:
        return f"{size}, which is not a clear difference on this number of rows."
    if points < 0:
        return f"{size} at the same training budget."
    return f"{size} at the same training budget: here, the better choice is the {baseline}."
