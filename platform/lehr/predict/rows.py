"""Mapping a predictor over images. Plain PyTorch: the caller decides on which rows and in which process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lehr.data.decode import Decoded
from lehr.predict.predictor import Predictor


@dataclass(frozen=True)
class Predictions:
    """The predictions for some rows.

    Attributes:
        probabilities: float32 [rows, classes]; NaN where the image could not be read. Of other tasks, what they
            predict.
        members: float32 [members, rows, classes], the same of each member; or None.
    """

    probabilities: np.ndarray
    members: np.ndarray | None


@torch.inference_mode()
def predict(predictor: Predictor, pixels: np.ndarray, members: bool = False, batch_size: int = 256) -> Predictions:
    """Predicts uint8 pixels [rows, height, width, channels], on the predictor's device.

    Args:
        members: also return the probabilities of each member.
        batch_size: images per forward pass.
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
    classes = len(predictor.classes)
    empty = torch.empty((0, classes))
    each = torch.cat(alone, dim=1).numpy() if alone else np.empty((len(predictor.names), 0, classes), np.float32)
    return Predictions(torch.cat(combined or [empty]).numpy(), each if members else None)


def predict_decoded(predictor: Predictor, decoded: Decoded, members: bool, batch_size: int) -> Predictions:
    """The predictions for all decoded rows; NaN for images that could not be read."""
    if not decoded.unreadable:
        return predict(predictor, decoded.pixels, members, batch_size)
    rows = len(decoded.labels)
    readable = np.setdiff1d(np.arange(rows), [row for row, _ in decoded.unreadable])
    found = predict(predictor, decoded.pixels[readable], members, batch_size)
    probabilities = np.full((rows, len(predictor.classes)), np.nan, np.float32)
    probabilities[readable] = found.probabilities
    if found.members is None:
        return Predictions(probabilities, None)
    each = np.full((len(found.members), *probabilities.shape), np.nan, np.float32)
    each[:, readable] = found.members
    return Predictions(probabilities, each)
