"""Whether a model that says 80 % is right in 80 of 100 cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lehr.ensembles.combine import Floats

BINS = 15  # as in the paper below


@dataclass(frozen=True)
class Bin:
    """The rows whose highest probability is above `low` and at most `high`.

    Attributes:
        rows: how many there are.
        confidence: their mean highest probability, 0 to 1.
        accuracy: the share of them that are right, 0 to 1.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(probabilities: Floats, labels: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The rows of a reliability diagram in bins of equal width, those that are empty left out.

    Args:
        probabilities: [rows, classes].
        labels: [rows].
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for k in range(bins):
        mine = number == k
        if rows := int(mine.sum()):
            found.append(Bin(k / bins, (k + 1) / bins, rows, float(sure[mine].mean()), float(right[mine].mean())))
    return found


def expected_calibration_error(probabilities: Floats, labels: np.ndarray, bins: int = BINS) -> float:
    """ECE = Σ (rows in bin / rows) |accuracy − confidence|, 0 to 1.

    Guo et al., "On calibration of modern neural networks", 2017.
    """
    total = len(labels)
    return sum(
        each.rows / total * abs(each.accuracy - each.confidence) for each in reliability(probabilities, labels, bins)
    )
