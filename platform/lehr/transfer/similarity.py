"""How alike new images are to those of the pretraining, measured: what the pretrained weights add to random ones."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.randomness import key, permutation

MOST_ROWS = 2000  # more would not change the sentence
FOLDS = 5
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per row and feature of unit variance
SIMILAR = 0.05  # what pretrained features must add to the accuracy of a probe


@dataclass(frozen=True)
class Similarity:
    """The cross-validated accuracy of a linear probe on the features of the network.

    Raw accuracy says nothing about likeness, since easy images are easy on any features; the difference does.

    Attributes:
        pretrained, random: the accuracy with the pretrained weights, and with random ones.
        rows: the images it was measured on.
        error: the standard error of the difference, from the images on which the two disagree.
    """

    pretrained: float
    random: float
    rows: int
    error: float

    @property
    def gain(self) -> float:
        """What the pretrained weights add: 0.13 and 0.14 for other classes of the same photographs, -0.01 and 0.01 for
        digits through a network for photographs."""
        return self.pretrained - self.random

    @property
    def similar(self) -> bool:
        return self.gain >= SIMILAR

    @property
    def sure(self) -> bool:
        """Whether chance alone is an unlikely reason for the side it fell on."""
        return abs(self.gain - SIMILAR) > self.error

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"gain": self.gain, "similar": self.similar, "sure": self.sure}


def similarity(pretrained: Tensor, random: Tensor, labels: Tensor, seed: int = 0) -> Similarity:
    """Measures it.

    Args:
        pretrained, random: float [rows, dimension]: features of the same rows through the same network.
        labels: int64 [rows].
    """
    one, other = (probe(values, labels, seed) for values in (pretrained, random))
    differ = (one.float() - other.float()).double()
    error = math.sqrt(float(differ.var(correction=0)) / max(1, len(labels)))
    return Similarity(float(one.float().mean()), float(other.float().mean()), len(labels), error)


def probe(values: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Whether a linear classifier that was trained without a row classifies it rightly: bool [rows].

    Least squares on one-hot targets, with the ridge that does best over the folds (Hoerl and Kennard, "Ridge
    regression", 1970). Folds are stratified and fixed by the seed.
    """
    order = permutation(key(seed, "probe"), len(labels))
    order = order[labels[order].argsort(stable=True)]
    folds = max(2, min(FOLDS, len(labels)))
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[order] = torch.arange(len(labels)) % folds
    targets = F.one_hot(labels).double()
    right = torch.zeros(len(RIDGES), len(labels), dtype=torch.bool)
    for number in range(folds):
        inside, outside = fold != number, fold == number
        mean, scale = values[inside].double().mean(dim=0), values[inside].double().std(dim=0, correction=0)
        scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
        x, held_out = (values[inside].double() - mean) / scale, (values[outside].double() - mean) / scale
        y, bias = targets[inside] - targets[inside].mean(dim=0), targets[inside].mean(dim=0)
        # With the singular values every ridge costs one product; few rows need no more of them than there are rows.
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        for place, ridge in enumerate(RIDGES):
            shrunk = s / (s.square() + ridge * len(x))
            found = held_out @ (v.T @ (shrunk[:, None] * (u.T @ y))) + bias
            right[place, outside] = found.argmax(dim=1) == labels[outside]
    return right[int(right.sum(dim=1).argmax())]
