"""Calibration: whether a model that claims 80% confidence is right in 80 of 100 cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def reliability(confidence: np.ndarray[Any, Any], right: np.ndarray[Any, Any], bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram, of equal width; empty bins are left out.

    Args:
        confidence: float [rows], the highest probability of each.
        right: bool [rows], whether the class with that probability is the true one.
    """
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for k in range(bins):
        inside = number == k
        if rows := int(inside.sum()):
            means = float(confidence[inside].mean()), float(right[inside].mean())
            found.append(Bin(k / bins, (k + 1) / bins, rows, *means))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = Σ (rows in bin / rows) |accuracy − confidence|, 0 to 1.

    Guo et al., "On calibration of modern neural networks", 2017.
    """
    total = sum(each.rows for each in bins)
    return sum(each.rows / total * abs(each.accuracy - each.confidence) for each in bins)


def error_by_chance(bins: Sequence[Bin]) -> float:
    """About what the calibration error of a model that is calibrated would be on so few rows, 0 to 1.

    The accuracy of n rows that are right with probability p is p ± √(p(1 − p)/n); the mean distance of a normal
    variable from its mean is √(2/π) of its deviation.
    """
    total = sum(each.rows for each in bins)
    spread = [each.rows * math.sqrt(each.confidence * (1 - min(1.0, each.confidence)) / each.rows) for each in bins]
    return math.sqrt(2 / math.pi) * sum(spread) / total
