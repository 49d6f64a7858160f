"""Which members count, and how much: weights from the members' outputs on validation rows, never on test rows.

Each is a function (logits [members, rows, classes], labels [rows], by) -> weights float64 [members] that sum to one.
To add one: write it and name it in `SELECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lehr.ensembles.combine import By, Floats, as_probabilities, averaged
from lehr.ensembles.measures import TINY, error, log_loss

MOST_ROUNDS = 50  # of greedy selection; the bag stops growing much earlier in practice


def equal(logits: Floats, labels: np.ndarray, by: By) -> Floats:
    """All members alike."""
    return np.full(len(logits), 1 / len(logits))


def best(logits: Floats, labels: np.ndarray, by: By) -> Floats:
    """Only the best member."""
    scores = [_score(one, labels, by) for one in averaged(logits, by)]
    return np.eye(len(logits))[scores.index(min(scores))]


def last(logits: Floats, labels: np.ndarray, by: By) -> Floats:
    """The last m members alike, with the m whose error is the lowest: how many snapshots to keep.

    Early snapshots of short cycles are too weak to help. Of several m with the same error, that of the lowest log loss.
    """
    from_the_end = averaged(logits, by)[::-1].cumsum(axis=0)
    scores = [_score(total / (m + 1), labels, by) for m, total in enumerate(from_the_end)]
    m = scores.index(min(scores)) + 1
    return np.r_[np.zeros(len(logits) - m), np.full(m, 1 / m)]


def greedy(logits: Floats, labels: np.ndarray, by: By) -> Floats:
    """Puts into a bag, again and again, the member with which the bag does best; a member may come in several times.

    Starts with the best member, adds up to `MOST_ROUNDS`, and returns the shares in the best bag on the way. Caruana et
    al., "Ensemble selection from libraries of models", 2004.
    """
    outputs = averaged(logits, by)
    bag, total, bags = np.zeros(len(logits)), np.zeros(outputs.shape[1:]), []
    for size in range(1, MOST_ROUNDS + 1):
        scores = [_score((total + one) / size, labels, by) for one in outputs]
        new = scores.index(min(scores))
        bag, total = bag + np.eye(len(logits))[new], total + outputs[new]
        bags.append((scores[new], bag / size))
    return min(bags, key=lambda found: found[0])[1]


def fitted(logits: Floats, labels: np.ndarray, by: By, steps: int = 500) -> Floats:
    """The weights with the lowest log loss, by projected steps on the simplex; the problem is convex.

    Exponentiated gradient with a step size that halves where the loss would rise. Kivinen and Warmuth, "Exponentiated
    gradient versus gradient descent for linear predictors", 1997.
    """
    outputs, rows = averaged(logits, by), np.arange(len(labels))
    weights, rate = np.full(len(logits), 1 / len(logits)), 1.0
    together = as_probabilities(np.tensordot(weights, outputs, axes=1), by)
    loss = log_loss(together, labels)
    for _ in range(steps):
        if by == "probabilities":
            gradient = -(outputs[:, rows, labels] / np.maximum(together[rows, labels], TINY)).mean(axis=1)
        else:
            gradient = (np.einsum("rc,mrc->mr", together, outputs) - outputs[:, rows, labels]).mean(axis=1)
        while True:
            moved = weights * np.exp(-rate * (gradient - gradient.min()))
            moved /= moved.sum()
            together = as_probabilities(np.tensordot(moved, outputs, axes=1), by)
            new = log_loss(together, labels)
            if new <= loss or rate < 1e-9:
                break
            rate /= 2
        gained = loss - new
        if gained >= 0:
            weights, loss, rate = moved, new, rate * 1.5
        if gained < 1e-12:
            break
    return weights


def _score(mean: Floats, labels: np.ndarray, by: By) -> tuple[float, float]:
    """Lower is better: the error first, the log loss where that is the same."""
    together = as_probabilities(mean, by)
    return error(together, labels), log_loss(together, labels)


SELECTIONS: dict[str, Callable[[Floats, np.ndarray, By], Floats]] = {
    "equal": equal,
    "best": best,
    "last": last,
    "greedy": greedy,
    "fitted": fitted,
}
