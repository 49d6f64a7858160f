"""What the rows of a run are like, before anything is trained: what a diagnosis must know to tell data from training.

All of it is cheap: labels are counted, pixels are hashed, and a linear model on small images is fitted in closed form.
Its accuracy tells what is reachable without a network; and whether validation rows are like training rows: those that
it was not fitted on, a quarter of the training rows, should be as easy as validation rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lehr.data.dataset import DataSubset, Splits
from lehr.data.randomness import key, permutation
from lehr.runs import DataSurvey, SplitSurvey

MOST_ROWS, MOST_BYTES = 4000, 64 << 20  # of a split whose pixels are looked at, drawn by the seed
MOST_HASHED = 256 << 20  # bytes of training rows that are compared with validation rows
SIDE = 8  # pixels of the images that the linear model gets
RIDGE = 1.0  # its penalty, in units of the mean variance of a feature
CHUNK = 500


def survey(splits: Splits, seed: int) -> DataSurvey:
    """Surveys the splits of a run. Of images that are decoded during training, only labels are known."""
    train, validation = splits.train, splits.validation
    if train.decodes_lazily or validation.decodes_lazily:
        return DataSurvey(SplitSurvey(len(train), _counts(train)), SplitSurvey(len(validation), _counts(validation)))
    some = _some(train, key(seed, "survey")), _some(validation, key(seed, "survey"))
    hashes = [_hashes(rows) for rows in some]
    # Every training row may be the one that a validation row repeats.
    is_small = len(train) * _size(train) <= MOST_HASHED
    every = hashes[0] if len(some[0]) == len(train) or not is_small else _hashes(train)
    known = {each for each in every if each}
    shared = [each in known for each in hashes[1] if each]
    linear, held_out, rows = _linear(*some, key(seed, "survey", 1))
    return DataSurvey(
        _split(train, some[0], hashes[0]),
        _split(validation, some[1], hashes[1]),
        float(np.mean(shared)) if shared else 0.0,
        linear,
        held_out,
        rows,
    )


def _counts(rows: DataSubset) -> tuple[int, ...]:
    return tuple(torch.bincount(rows.labels.cpu(), minlength=len(rows.classes)).tolist())


def _some(rows: DataSubset, stream: int) -> DataSubset:
    most = min(MOST_ROWS, MOST_BYTES // max(1, _size(rows)))
    return rows if len(rows) <= most else rows.subset(permutation(stream, len(rows))[:most])


def _size(rows: DataSubset) -> int:
    """Bytes of an image."""
    channels, height, width = rows.shape
    return channels * height * width


def _pixels(rows: DataSubset) -> Iterator[Tensor]:
    """uint8 [some, channels, height, width], on the CPU."""
    for batch in rows.batches(torch.arange(len(rows)).split(CHUNK)):
        yield batch.inputs.cpu()


def _hashes(rows: DataSubset) -> list[bytes]:
    """The hash of each row's pixels; empty for a row whose pixels are all the same."""
    found = []
    for pixels in _pixels(rows):
        flat = pixels.reshape(len(pixels), -1).numpy()
        blank = flat.min(axis=1) == flat.max(axis=1) if flat.size else np.zeros(len(flat), bool)
        found += [
            b"" if same else hashlib.blake2b(row.tobytes(), digest_size=12).digest()
            for row, same in zip(flat, blank, strict=True)
        ]
    return found


def _split(whole: DataSubset, rows: DataSubset, hashes: list[bytes]) -> SplitSurvey:
    values = [pixels.to(torch.float64) / 255 for pixels in _pixels(rows)]
    mean = sum(float(each.sum()) for each in values) / max(1, sum(each.numel() for each in values))
    variance = sum(float(((each - mean) ** 2).sum()) for each in values) / max(1, sum(each.numel() for each in values))
    pictures = [each for each in hashes if each]
    return SplitSurvey(
        rows=len(whole),
        counts=_counts(whole),
        seen=len(rows),
        blank=1 - len(pictures) / max(1, len(hashes)),
        repeated=(len(pictures) - len(set(pictures))) / max(1, len(hashes)),
        mean=mean,
        deviation=variance**0.5,
    )


# ── a linear model ──────────────────────────────────────────────────────────────────────────────────────────────────


def _linear(train: DataSubset, validation: DataSubset, stream: int) -> tuple[float | None, float | None, int]:
    """Its accuracy on validation rows, on held-out training rows, and how many these are."""
    count = len(train)
    if count < 8 or not len(validation):
        return None, None, 0
    order = permutation(stream, count)
    held, fitted = order[: count // 4], order[count // 4 :]
    x, labels = _features(train), train.labels.cpu()
    centre, scale = x[fitted].mean(0), x[fitted].std(0) + 1e-6
    x, other = (x - centre) / scale, (_features(validation) - centre) / scale
    weights = _fit(x[fitted], labels[fitted], len(train.classes))
    right = [
        (_apply(weights, rows).argmax(1) == wanted).double().mean()
        for rows, wanted in ((other, validation.labels.cpu()), (x[held], labels[held]))
    ]
    return float(right[0]), float(right[1]), len(held)


def _features(rows: DataSubset) -> Tensor:
    """float64 [rows, features]: the images at SIDE pixels, flat."""
    small = [
        torch.nn.functional.adaptive_avg_pool2d(
            pixels.double(), (min(SIDE, pixels.shape[2]), min(SIDE, pixels.shape[3]))
        )
        for pixels in _pixels(rows)
    ]
    return torch.cat(small).flatten(1) / 255


def _fit(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Ridge regression onto one-hot labels, in which every class counts alike: weights [features + 1, classes].

    Hoerl and Kennard, "Ridge regression", 1970.
    """
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).double()
    share = (1 / counts)[labels] * len(labels) / classes
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    targets = torch.nn.functional.one_hot(labels, classes).to(x.dtype)
    weighted = design * share[:, None]
    gram = weighted.T @ design
    penalty = RIDGE * gram.diagonal().mean() / 10
    gram = gram + penalty * torch.eye(len(gram), dtype=x.dtype)
    return torch.linalg.solve(gram, weighted.T @ targets)


def _apply(weights: Tensor, x: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]
