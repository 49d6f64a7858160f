"""Mapping a predictor over images. Plain PyTorch: the caller decides on which rows and in which process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehr.data.decode import Decoded
from lehr.data.labels import object_array
from lehr.data.pixels import PixelFormat
from lehr.data.sources.boxes import scales
from lehr.predict.predictor import Predictor
from lehr.tasks.base import Task

MOST_VALUES = 1 << 26
"""Numbers in memory while a batch of masks is predicted."""


@dataclass(frozen=True)
class Predictions:
    """The predictions for some rows.

    Attributes:
        probabilities: float32 [rows, classes]; NaN where the image could not be read. Of other tasks, what they
            predict, float32 [rows, …]; masks are objects [rows], each uint8 [height, width], empty for such an image.
        members: float32 [members, rows, …], the same of each member; or None.
    """

    probabilities: np.ndarray
    members: np.ndarray | None

    @property
    def unreadable(self) -> np.ndarray:
        """bool [rows]."""
        if self.probabilities.dtype == object:  # masks of images of different sizes
            return np.array([not mask.size for mask in self.probabilities], bool)
        rows = self.probabilities.reshape(len(self.probabilities), -1)
        return np.isnan(rows[:, 0])


@torch.inference_mode()
def predict(
    predictor: Predictor,
    pixels: np.ndarray,
    members: bool = False,
    batch_size: int = 256,
    sizes: np.ndarray | None = None,
) -> Predictions:
    """Predicts uint8 pixels [rows, height, width, channels], on the predictor's device.

    Args:
        members: also return the probabilities of each member.
        batch_size: images per forward pass.
        sizes: int64 [rows, 2], height and width of the images before they were letterboxed; what is predicted of places
            is then in the pixels of these.
    """
    combined: list[Tensor] = []
    alone: list[Tensor] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pixels may be read-only, but are only read here
        everything = torch.from_numpy(pixels)
    task = predictor.task
    if task.labels == "mask":  # a probability for each class and pixel
        values = len(predictor.names) * len(predictor.classes) * predictor.size[0] * predictor.size[1]
        batch_size = max(1, min(batch_size, MOST_VALUES // values))
    for batch in everything.split(batch_size) if len(pixels) else ():
        logits = predictor.logits(batch.to(predictor.device).permute(0, 3, 1, 2))
        combined.append(task.decided(predictor.combine(logits)).cpu())
        if members:
            alone.append(torch.stack([task.decided(each) for each in predictor.alone(logits)]).cpu())
    shape = task.shape_of_values
    together = torch.cat(combined or [torch.empty((0, *shape))]).numpy()
    each = torch.cat(alone, dim=1).numpy() if alone else np.empty((len(predictor.names), 0, *shape), np.float32)
    if sizes is not None:
        together = in_original(predictor.task, predictor.wanted, together, sizes)
        if members:
            each = np.stack([in_original(predictor.task, predictor.wanted, one, sizes) for one in each])
    return Predictions(together, each if members else None)


def in_original(task: Task[Any], wanted: PixelFormat, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What was predicted, in the pixels of images as they were before they were letterboxed.

    Args:
        wanted: what they were decoded to. sizes: int64 [rows, 2], height and width before that.
    """
    if not wanted.letterbox or wanted.size is None:
        return values
    return task.in_original(values, sizes, scales(sizes, wanted.size))


def predict_decoded(predictor: Predictor, decoded: Decoded, members: bool, batch_size: int) -> Predictions:
    """The predictions for all decoded rows; NaN for images that could not be read."""
    sizes = decoded.sizes
    if not decoded.unreadable:
        return predict(predictor, decoded.pixels, members, batch_size, sizes)
    rows = len(decoded.labels)
    readable = np.setdiff1d(np.arange(rows), [row for row, _ in decoded.unreadable])
    there = None if sizes is None else sizes[readable]
    found = predict(predictor, decoded.pixels[readable], members, batch_size, there)
    if found.probabilities.dtype == object:
        return _with_unreadable_masks(found, rows, readable)
    probabilities = np.full((rows, *predictor.task.shape_of_values), np.nan, np.float32)
    probabilities[readable] = found.probabilities
    if found.members is None:
        return Predictions(probabilities, None)
    each = np.full((len(found.members), *probabilities.shape), np.nan, np.float32)
    each[:, readable] = found.members
    return Predictions(probabilities, each)


def _with_unreadable_masks(found: Predictions, rows: int, readable: np.ndarray) -> Predictions:
    def spread(masks: np.ndarray) -> np.ndarray:
        whole = object_array([np.zeros((0, 0), np.uint8)] * rows)
        whole[readable] = masks
        return whole

    members = None if found.members is None else np.stack([spread(each) for each in found.members])
    return Predictions(spread(found.probabilities), members)
