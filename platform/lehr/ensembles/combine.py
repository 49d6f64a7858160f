"""The outputs of several members as one."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

By: TypeAlias = Literal["probabilities", "logits"]
Floats: TypeAlias = np.ndarray


def log_probabilities(logits: Floats) -> Floats:
    """float64 of the same shape: the logarithms of the softmax over the last axis."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def combine(logits: Floats, weights: Floats, by: By = "probabilities") -> Floats:
    """What the members say together: class probabilities float64 [rows, classes].

    By `probabilities`: Σ wₘ softmax(zₘ), their mean, as a vote with shares. By `logits`: softmax(Σ wₘ zₘ), the mean
    before the softmax, in which a member that is sure that a class is wrong can rule it out.

    Args:
        logits: [members, rows, classes].
        weights: [members], not negative; they are scaled to sum to one.

    Raises:
        ValueError: no member has any weight.
    """
    shares = np.asarray(weights, np.float64)
    if len(shares) != len(logits) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"{shares.tolist()} are no weights of {len(logits)} members; allowed: from 0, one above it")
    used = np.flatnonzero(shares)
    mean = np.tensordot(shares[used] / shares.sum(), averaged(np.asarray(logits)[used], by), axes=1)
    return as_probabilities(mean, by)


def averaged(logits: Floats, by: By) -> Floats:
    """float64 of the same shape: that of which the mean is taken."""
    return np.exp(log_probabilities(logits)) if by == "probabilities" else np.asarray(logits, np.float64)


def as_probabilities(mean: Floats, by: By) -> Floats:
    """The probabilities that such a mean [rows, classes] stands for."""
    return mean if by == "probabilities" else np.exp(log_probabilities(mean))
