"""Mapping a predictor over images. Plain PyTorch: the caller decides on which rows and in which process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehr.data.decode import Decoded
from lehr.data.pixels import PixelFormat
from lehr.data.sources.boxes import scales
from lehr.predict.predictor import Predictor
from lehr.tasks.base import Task


@dataclass(frozen=True)
class Predictions:
    """The predictions for some rows.

    Attributes:
        probabilities: float32 [rows, classes]; NaN where the image could not be read. Of other tasks, what they
            predict, float32 [rows, …].
        members: float32 [members, rows, …], the same of each member; or None.
    """

    probabilities: np.ndarray
    members: np.ndarray | None

    @property
    def unreadable(self) -> np.ndarray:
        """bool [rows]."""
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
    for batch in everything.split(batch_size) if len(pixels) else ():
        logits = predictor.logits(batch.to(predictor.device).permute(0, 3, 1, 2))
        combined.append(predictor.combine(logits).cpu())
        if members:
            alone.append(predictor.alone(logits).cpu())
    shape = predictor.task.shape_of_values
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
    probabilities = np.full((rows, *predictor.task.shape_of_values), np.nan, np.float32)
    probabilities[readable] = found.probabilities
    if found.members is None:
        return Predictions(probabilities, None)
    each = np.full((len(found.members), *probabilities.shape), np.nan, np.float32)
    each[:, readable] = found.members
    return Predictions(probabilities, each)
