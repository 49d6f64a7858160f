"""What the rows of a run are like, before anything is trained: what a diagnosis must know to tell data from training.

All of it is cheap: labels are counted, pixels are hashed, and a linear model on small images is fitted in closed form.
Its accuracy tells what is reachable without a network; and whether validation rows are like training rows: those that
it was not fitted on, a quarter of the training rows, should be as easy as validation rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot

from lehr.data.dataset import DataSubset, Splits
from lehr.data.labels import one_class_each
from lehr.data.randomness import key, permutation
from lehr.runs import DataSurvey, SplitSurvey

MOST_ROWS, MOST_BYTES = 4000, 64 << 20  # of a split whose pixels are looked at, drawn by the seed
MOST_HASHED = 256 << 20  # bytes of training rows that are compared with validation rows
SIDE = 8  # pixels of the images that the linear model gets
RIDGE = 0.1  # its penalty, in units of the mean variance of a feature
CHUNK_BYTES = 4 << 20  # of images that are looked at together


def survey(splits: Splits, seed: int) -> DataSurvey:
    """Surveys the splits of a run. Of images that are decoded during training, only labels are known."""
    train, validation = splits.train, splits.validation
    if train.decodes_lazily or validation.decodes_lazily:
        return DataSurvey(SplitSurvey(len(train), _counts(train)), SplitSurvey(len(validation), _counts(validation)))
    some = [_some(rows, key(seed, "survey")) for rows in (train, validation)]
    seen = [_look_at(rows) for rows in some]
    hashes = seen[0].hashes
    if len(some[0]) < len(train) and len(train) * _size(train) <= MOST_HASHED:
        hashes = [each for pixels in _pixels(train) for each in _hashes(pixels)]  # a validation row may repeat any
    known = set(filter(None, hashes))
    shared = [each in known for each in seen[1].hashes if each]
    labels = [rows.labels.cpu() for rows in some]
    classes, stream = len(train.classes), key(seed, "survey", 1)
    linear = (
        _linear(seen[0].features, labels[0], seen[1].features, labels[1], classes, stream)
        if one_class_each(labels[0])
        else (None, None, 0)
    )
    return DataSurvey(
        _split(train, seen[0]), _split(validation, seen[1]), float(np.mean(shared)) if shared else 0.0, *linear
    )


def _counts(rows: DataSubset) -> tuple[int, ...]:
    """Rows of each class; nothing where a row has no one class."""
    if not one_class_each(rows.labels_at(torch.arange(min(1, len(rows)), device=rows.device))):
        return ()
    return tuple(rows.class_counts().tolist())


def _some(rows: DataSubset, stream: int) -> DataSubset:
    most = min(MOST_ROWS, MOST_BYTES // max(1, _size(rows)))
    return rows if len(rows) <= most else rows.subset(rows.some_rows(stream, most))


def _size(rows: DataSubset) -> int:
    """Bytes of an image."""
    channels, height, width = rows.shape
    return channels * height * width


class _Seen(NamedTuple):
    """What one look at some rows gives.

    Attributes:
        hashes: of each row's pixels; empty for a row whose pixels are all the same.
        histogram: int64 [256], how often each value occurs.
        features: float64 [rows, features], the images at SIDE pixels, flat.
    """

    hashes: list[bytes]
    histogram: Tensor
    features: Tensor


def _look_at(rows: DataSubset) -> _Seen:
    hashes, histogram, features = [], torch.zeros(256, dtype=torch.int64), []
    for pixels in _pixels(rows):
        hashes += _hashes(pixels)
        histogram += torch.bincount(pixels.flatten(), minlength=256)
        size = [min(SIDE, side) for side in pixels.shape[2:]]
        features.append(adaptive_avg_pool2d(pixels.double(), (size[0], size[1])).flatten(1) / 255)
    return _Seen(hashes, histogram, torch.cat(features) if features else torch.zeros(0, 1, dtype=torch.float64))


def _pixels(rows: DataSubset) -> Iterator[Tensor]:
    """uint8 [some, channels, height, width], on the CPU."""
    for batch in rows.batches(torch.arange(len(rows)).split(max(1, CHUNK_BYTES // max(1, _size(rows))))):
        yield batch.inputs.cpu()


def _hashes(pixels: Tensor) -> list[bytes]:
    flat = pixels.reshape(len(pixels), -1).numpy()
    blank = flat.min(axis=1) == flat.max(axis=1)
    return [
        b"" if same else hashlib.blake2b(row.tobytes(), digest_size=12).digest()
        for row, same in zip(flat, blank, strict=True)
    ]


def _split(whole: DataSubset, seen: _Seen) -> SplitSurvey:
    values, count = torch.arange(256, dtype=torch.float64) / 255, max(1, int(seen.histogram.sum()))
    mean = float(values @ seen.histogram.double()) / count
    variance = float((values - mean) ** 2 @ seen.histogram.double()) / count
    rows, pictures = max(1, len(seen.hashes)), list(filter(None, seen.hashes))
    return SplitSurvey(
        rows=len(whole),
        counts=_counts(whole),
        seen=len(seen.hashes),
        blank=1 - len(pictures) / rows,
        repeated=(len(pictures) - len(set(pictures))) / rows,
        mean=mean,
        deviation=variance**0.5,
    )


# ── a linear model ──────────────────────────────────────────────────────────────────────────────────────────────────


def _linear(
    x: Tensor, labels: Tensor, other: Tensor, wanted: Tensor, classes: int, stream: int
) -> tuple[float | None, float | None, int]:
    """Its accuracy on validation rows, on held-out training rows, and how many these are."""
    if len(x) < 8 or not len(other):
        return None, None, 0
    order = permutation(stream, len(x))
    held, fitted = order[: len(x) // 4], order[len(x) // 4 :]
    centre, scale = x[fitted].mean(0), x[fitted].std(0) + 1e-6
    weights = _fit((x[fitted] - centre) / scale, labels[fitted], classes)

    def accuracy(rows: Tensor, of: Tensor) -> float:
        return float((_apply(weights, (rows - centre) / scale).argmax(1) == of).double().mean())

    return accuracy(other, wanted), accuracy(x[held], labels[held]), len(held)


def _fit(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Ridge regression onto one-hot labels, in which every class counts alike: weights [features + 1, classes].

    Hoerl and Kennard, "Ridge regression", 1970.
    """
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).double()
    share = (1 / counts)[labels] * len(labels) / classes
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    targets = one_hot(labels, classes).to(x.dtype)
    weighted = design * share[:, None]
    gram = weighted.T @ design
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype)
    return torch.linalg.solve(gram, weighted.T @ targets)


def _apply(weights: Tensor, x: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]
