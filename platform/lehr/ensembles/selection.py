"""Selection methods: the weights of members, from their outputs on validation rows, never on test rows.

Each is a function (logits [members, rows, classes], labels [rows], by) → weights float64 [members] that sum to one.
To add one: write it and name it in `SELECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lehr.ensembles.combine import CombineBy, Floats, Labels, as_probabilities, to_average
from lehr.ensembles.metrics import SMALLEST, error, log_loss

MAX_ROUNDS = 50  # of greedy selection; in practice the best bag is found much earlier


def equal(logits: Floats, labels: Labels, by: CombineBy) -> Floats:
    """The same weight for all members."""
    return np.full(len(logits), 1 / len(logits))


def best(logits: Floats, labels: Labels, by: CombineBy) -> Floats:
    """The best member only."""
    scores = [_score(one, labels, by) for one in to_average(logits, by)]
    return np.eye(len(logits))[scores.index(min(scores))]


def last(logits: Floats, labels: Labels, by: CombineBy) -> Floats:
    """Equal weights for the last m members, with the m that gives the lowest error: how many snapshots to keep.

    Early snapshots of short cycles are too weak to help. Ties are broken by the log loss.
    """
    from_the_end = to_average(logits, by)[::-1].cumsum(axis=0)
    scores = [_score(total / (m + 1), labels, by) for m, total in enumerate(from_the_end)]
    m = scores.index(min(scores)) + 1
    return np.r_[np.zeros(len(logits) - m), np.full(m, 1 / m)]


def greedy(logits: Floats, labels: Labels, by: CombineBy) -> Floats:
    """Greedy selection with replacement: repeatedly adds the member that improves the combined result most.

    Starts with the best member, adds up to `MAX_ROUNDS` members, and returns their shares in the best bag on the way.
    Caruana et al., "Ensemble selection from libraries of models", 2004.
    """
    outputs = to_average(logits, by)
    bag, total, bags = np.zeros(len(logits)), np.zeros(outputs.shape[1:]), []
    for size in range(1, MAX_ROUNDS + 1):
        scores = [_score((total + one) / size, labels, by) for one in outputs]
        new = scores.index(min(scores))
        bag, total = bag + np.eye(len(logits))[new], total + outputs[new]
        bags.append((scores[new], bag / size))
    return min(bags, key=lambda found: found[0])[1]


def fitted(logits: Floats, labels: Labels, by: CombineBy, steps: int = 500) -> Floats:
    """The weights with the lowest log loss on the simplex; the problem is convex.

    Exponentiated gradient descent whose step size is halved whenever the loss would rise. Kivinen and Warmuth,
    "Exponentiated gradient versus gradient descent for linear predictors", 1997.
    """
    outputs, rows = to_average(logits, by), np.arange(len(labels))
    weights, rate = np.full(len(logits), 1 / len(logits)), 1.0
    combined = as_probabilities(np.tensordot(weights, outputs, axes=1), by)
    loss = log_loss(combined, labels)
    for _ in range(steps):
        if by == "probabilities":
            gradient = -(outputs[:, rows, labels] / np.maximum(combined[rows, labels], SMALLEST)).mean(axis=1)
        else:
            gradient = (np.einsum("rc,mrc->mr", combined, outputs) - outputs[:, rows, labels]).mean(axis=1)
        while True:
            moved = weights * np.exp(-rate * (gradient - gradient.min()))
            moved /= moved.sum()
            combined = as_probabilities(np.tensordot(moved, outputs, axes=1), by)
            new = log_loss(combined, labels)
            if new <= loss or rate < 1e-9:
                break
            rate /= 2
        gained = loss - new
        if gained >= 0:
            weights, loss, rate = moved, new, rate * 1.5
        if gained < 1e-12:
            break
    return weights


def _score(mean: Floats, labels: Labels, by: CombineBy) -> tuple[float, float]:
    """(error, log loss) of the combined members; compared in this order, lower is better."""
    combined = as_probabilities(mean, by)
    return error(combined, labels), log_loss(combined, labels)


SELECTIONS: dict[str, Callable[[Floats, Labels, CombineBy], Floats]] = {
    "equal": equal,
    "best": best,
    "last": last,
    "greedy": greedy,
    "fitted": fitted,
}
