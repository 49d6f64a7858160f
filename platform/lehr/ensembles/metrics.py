"""How good members are, alone and combined, and how much they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lehr.ensembles.combine import CombineBy, Floats, Labels, combine

SMALLEST = float(np.finfo(np.float64).tiny)


def error(probabilities: Floats, labels: Labels) -> float:
    """The share of rows whose most probable class is not their label: 0 to 1.

    Args:
        probabilities: [rows, classes].
        labels: [rows].
    """
    return float((probabilities.argmax(axis=1) != labels).mean())


def log_loss(probabilities: Floats, labels: Labels) -> float:
    """The mean of −log p(label), in nats; a probability of zero counts as the smallest positive number."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_label, SMALLEST)).mean())


def disagreement(logits: Floats) -> Floats:
    """float64 [members, members]: the share of rows that two members classify differently. Zero on the diagonal.

    Members that never disagree gain nothing from being combined.
    """
    predicted = np.asarray(logits).argmax(axis=2)
    return (predicted[:, None] != predicted[None]).mean(axis=2)


def combine_cumulatively(logits: Floats, order: Sequence[int], by: CombineBy) -> Iterator[Floats]:
    """The probabilities of the first member in `order`, of the first two with equal weights, and so on."""
    weights = np.zeros(len(logits))
    for member in order:
        weights[member] = 1
        yield combine(logits, weights, by)


@dataclass(frozen=True)
class Difference:
    """The difference in error between two models on the same rows.

    Attributes:
        mean: the first model's error minus the second's, from −1 to 1; negative if the first is better.
        standard_error: of `mean`, from the rows that just one of the two classifies correctly.
    """

    mean: float
    standard_error: float

    @property
    def clear(self) -> bool:
        """Whether it is more than two standard errors from zero."""
        return abs(self.mean) > 2 * self.standard_error


def paired_difference(first: Floats, second: Floats, labels: Labels) -> Difference:
    """Compares two models by their probabilities [rows, classes] on the same rows, as in McNemar's test (1947)."""
    difference = (first.argmax(axis=1) != labels).astype(float) - (second.argmax(axis=1) != labels)
    return Difference(float(difference.mean()), float(difference.std() / math.sqrt(len(labels))))
