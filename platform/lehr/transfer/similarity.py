"""How similar new images are to those of the pretraining, measured by what pretrained weights add to random ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.randomness import key, permutation

MAX_ROWS = 2000  # more would not change the conclusion
FOLDS = 5
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per row and feature of unit variance
SIMILAR_GAIN = 0.05  # probe accuracy that pretrained features must add for data to count as similar


@dataclass(frozen=True)
class Similarity:
    """The cross-validated accuracy of a linear probe on the features of the network.

    The accuracy alone says nothing about similarity, since easy images are easy on any features; the gain over random
    weights does.

    Attributes:
        pretrained, random: probe accuracy, 0 to 1, with the pretrained weights and with random ones.
        rows: the number of images it was measured on.
        error: the standard error of the gain, from the images on which the two probes disagree.
    """

    pretrained: float
    random: float
    rows: int
    error: float

    @property
    def gain(self) -> float:
        """Accuracy that the pretrained weights add: 0.13 and 0.14 for other classes of the same photographs, -0.01 and
        0.01 for digits through a network for photographs."""
        return self.pretrained - self.random

    @property
    def similar(self) -> bool:
        """Whether the gain reaches `SIMILAR_GAIN`."""
        return self.gain >= SIMILAR_GAIN

    @property
    def conclusive(self) -> bool:
        """Whether the gain is more than one standard error from the threshold."""
        return abs(self.gain - SIMILAR_GAIN) > self.error


def measure_similarity(pretrained: Tensor, random: Tensor, labels: Tensor, seed: int = 0) -> Similarity:
    """Probes pretrained and random features of the same rows.

    Args:
        pretrained, random: float [rows, dimension]: features of the same rows through the same network.
        labels: int64 [rows].
    """
    correct, baseline = (probe(values, labels, seed) for values in (pretrained, random))
    difference = (correct.float() - baseline.float()).double()
    error = math.sqrt(float(difference.var(correction=0)) / max(1, len(labels)))
    return Similarity(float(correct.float().mean()), float(baseline.float().mean()), len(labels), error)


def probe(values: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Whether a linear classifier trained without a row classifies that row correctly: bool [rows].

    Least squares on one-hot targets, with the ridge penalty that is best over all folds (Hoerl and Kennard, "Ridge
    regression", 1970). Folds are stratified and fixed by the seed.

    Args:
        values: float [rows, dimension].
        labels: int64 [rows].
    """
    order = permutation(key(seed, "probe"), len(labels))
    order = order[labels[order].argsort(stable=True)]
    folds = max(2, min(FOLDS, len(labels)))
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[order] = torch.arange(len(labels)) % folds
    targets = F.one_hot(labels).double()
    correct = torch.zeros(len(RIDGES), len(labels), dtype=torch.bool)
    for number in range(folds):
        inside, outside = fold != number, fold == number
        mean, scale = values[inside].double().mean(dim=0), values[inside].double().std(dim=0, correction=0)
        scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
        x, held_out = (values[inside].double() - mean) / scale, (values[outside].double() - mean) / scale
        y, bias = targets[inside] - targets[inside].mean(dim=0), targets[inside].mean(dim=0)
        # Given the singular values, each ridge costs one product; there are never more of them than rows.
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        for index, ridge in enumerate(RIDGES):
            shrunk = s / (s.square() + ridge * len(x))
            predicted = held_out @ (v.T @ (shrunk[:, None] * (u.T @ y))) + bias
            correct[index, outside] = predicted.argmax(dim=1) == labels[outside]
    return correct[int(correct.sum(dim=1).argmax())]
