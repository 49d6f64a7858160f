"""Calibration: whether a model that claims 80% confidence is right in 80 of 100 cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lehr.ensembles.combine import Floats, Labels

BINS = 15  # as in Guo et al., 2017


@dataclass(frozen=True)
class Bin:
    """The rows whose highest probability is above `low` and at most `high`.

    Attributes:
        rows: the number of rows.
        confidence: their mean highest probability, 0 to 1.
        accuracy: the share of them that is classified correctly, 0 to 1.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram, of equal width; empty bins are left out.

    Args:
        probabilities: [rows, classes].
        labels: [rows].
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for k in range(bins):
        inside = number == k
        if rows := int(inside.sum()):
            means = float(confidence[inside].mean()), float(correct[inside].mean())
            found.append(Bin(k / bins, (k + 1) / bins, rows, *means))
    return found


def expected_calibration_error(probabilities: Floats, labels: Labels, bins: int = BINS) -> float:
    """ECE = Σ (rows in bin / rows) |accuracy − confidence|, 0 to 1.

    Guo et al., "On calibration of modern neural networks", 2017.
    """
    total = len(labels)
    return sum(
        each.rows / total * abs(each.accuracy - each.confidence) for each in reliability(probabilities, labels, bins)
    )
