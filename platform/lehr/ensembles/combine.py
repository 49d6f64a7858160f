"""Combining the outputs of several members into class probabilities."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

CombineBy: TypeAlias = Literal["probabilities", "logits"]
"""What is averaged over the members."""
Floats: TypeAlias = NDArray[np.floating[Any]]
Labels: TypeAlias = NDArray[np.int64]


def log_probabilities(logits: Floats) -> Floats:
    """float64 of the same shape: the logarithm of the softmax over the last axis."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def combine(logits: Floats, weights: Floats, by: CombineBy = "probabilities") -> Floats:
    """The combined class probabilities of all members: float64 [rows, classes].

    By `probabilities`: Σ wₘ softmax(zₘ), a weighted vote. By `logits`: softmax(Σ wₘ zₘ), a geometric mean of the
    probabilities, in which one member that is certain a class is wrong can rule it out.

    Args:
        logits: [members, rows, classes].
        weights: [members], not negative; they are scaled to sum to one.

    Raises:
        ValueError: the weights do not fit the members, or are all zero.
    """
    weights = np.asarray(weights, np.float64)
    if len(weights) != len(logits) or (weights < 0).any() or not weights.sum() > 0:
        allowed = f"one number for each of the {len(logits)} members, none below 0 and at least one above"
        raise ValueError(f"{weights.tolist()} are not valid weights; allowed: {allowed}")
    used = np.flatnonzero(weights)
    mean = np.tensordot(weights[used] / weights.sum(), to_average(np.asarray(logits)[used], by), axes=1)
    return as_probabilities(mean, by)


def to_average(logits: Floats, by: CombineBy) -> Floats:
    """The values that are averaged over members: float64, of the shape of `logits`."""
    return np.exp(log_probabilities(logits)) if by == "probabilities" else np.asarray(logits, np.float64)


def as_probabilities(mean: Floats, by: CombineBy) -> Floats:
    """The class probabilities [rows, classes] that correspond to such an average."""
    return mean if by == "probabilities" else np.exp(log_probabilities(mean))
