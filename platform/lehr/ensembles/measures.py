"""How good members are, alone and together, and how much they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lehr.ensembles.combine import By, Floats, combine

TINY = float(np.finfo(np.float64).tiny)


def error(probabilities: Floats, labels: np.ndarray) -> float:
    """The share of rows [rows, classes] whose largest value is not at their label: 0 to 1."""
    return float((probabilities.argmax(axis=1) != labels).mean())


def log_loss(probabilities: Floats, labels: np.ndarray) -> float:
    """The mean of −log p(label), in nats; a probability of zero counts as the smallest above it."""
    given = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, TINY)).mean())


def disagreement(logits: Floats) -> Floats:
    """float64 [members, members]: the share of rows that two members put into different classes. Zero on the diagonal.

    Members that never disagree gain nothing from being combined.
    """
    chosen = np.asarray(logits).argmax(axis=2)
    return (chosen[:, None] != chosen[None]).mean(axis=2)


def as_members_are_added(logits: Floats, order: Sequence[int], by: By) -> Iterator[Floats]:
    """The probabilities of the first member of `order`, of the first two with equal weights, and so on."""
    weights = np.zeros(len(logits))
    for member in order:
        weights[member] = 1
        yield combine(logits, weights, by)


@dataclass(frozen=True)
class Difference:
    """By how much the error of one model is larger than that of another on the same rows.

    Attributes:
        mean: error of the first less error of the second, from −1 to 1; negative where the first is better.
        standard_error: of `mean`, from the rows on which just one of the two is right.
    """

    mean: float
    standard_error: float

    @property
    def clear(self) -> bool:
        """Whether it is more than two standard errors off zero."""
        return abs(self.mean) > 2 * self.standard_error


def paired_difference(first: Floats, second: Floats, labels: np.ndarray) -> Difference:
    """Compares two models by their probabilities [rows, classes] on the same rows, as in McNemar's test (1947)."""
    difference = (first.argmax(axis=1) != labels).astype(float) - (second.argmax(axis=1) != labels)
    return Difference(float(difference.mean()), float(difference.std() / math.sqrt(len(labels))))
