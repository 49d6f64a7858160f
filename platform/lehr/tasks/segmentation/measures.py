"""What is made of the confusion of pixels: intersection over union of each class, their mean, and accuracy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lehr.tasks.forms import NOT_COUNTED


def confusion_of(found: Tensor, targets: Tensor, classes: int) -> Tensor:
    """float64 [classes, classes]: the counted pixels by true class (first) and found class (second).

    Args:
        found, targets: [rows, height, width], classes; a target of 255, or of a row that is unread, does not count.
    """
    known = targets < classes
    pairs = targets[known].long() * classes + found[known].long()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).to(torch.float64)


def confusion_of_row(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes], of one row [height, width]."""
    known = (truth < classes) & (found < classes)
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def overlaps(confusion: np.ndarray) -> np.ndarray:
    """float64 [classes]: intersection over union; NaN of a class that is neither true nor found anywhere."""
    right = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, right / union, np.nan)


def mean_overlap(confusion: np.ndarray) -> float:
    """The mean over classes that are true or found somewhere; NaN where no pixel counts."""
    each = overlaps(confusion)
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def accuracy(confusion: np.ndarray) -> float:
    """The share of counted pixels whose class is right; NaN where none counts."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.sum() else float("nan")


def chance_of(counts: np.ndarray) -> float:
    """The mean overlap where every pixel is said to be of the class that most pixels are of: its share, divided by the
    classes that there are. NaN where no pixel counts."""
    there = int((counts > 0).sum())
    return float(counts.max() / counts.sum() / there) if there else float("nan")


def pixels_of_classes(masks: Tensor, classes: int) -> Tensor:
    """float64 [classes]: how many pixels each class has in masks uint8 [rows, height, width]."""
    counts = torch.zeros(NOT_COUNTED + 1, dtype=torch.float64)
    for some in masks.split(256):
        counts += torch.bincount(some.flatten(), minlength=NOT_COUNTED + 1).to(torch.float64)
    return counts[:classes]
