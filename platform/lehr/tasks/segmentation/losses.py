"""What the pixels of a row cost: functions (outputs, targets, **options) → the loss of each row [rows].

Outputs are logits [rows, classes, height, width], targets classes [rows, height, width], 255 where a pixel does not
count. What a row costs is divided by its own counted pixels: it depends neither on the rows beside it, nor on workers
or `gradient_accumulation`. A row without any costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.forms import MOST_CLASSES, UNREADABLE


def counted(targets: Tensor) -> Tensor:
    """bool, of the shape of the targets: the pixels that are learned and measured."""
    return targets < MOST_CLASSES


def cross_entropy(
    outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """The mean over counted pixels of −Σ_c w_c t_c log p_c with p = softmax(outputs): Ronneberger et al., "U-Net:
    convolutional networks for biomedical image segmentation", 2015, with weights of classes in place of pixels."""
    classes = targets.long().masked_fill(~counted(targets), UNREADABLE)
    each = F.cross_entropy(
        outputs, classes, class_weights, ignore_index=UNREADABLE, reduction="none", label_smoothing=label_smoothing
    )
    return _mean(each, targets)


def focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """The mean over counted pixels of −w_t (1 − p_t)^γ log p_t: Lin et al., "Focal loss for dense object detection",
    2017. With γ = 0 it is cross entropy."""
    if gamma < 0:
        raise ValueError(f"gamma: {gamma} is out of range; allowed: 0 or more")
    classes = targets.long().masked_fill(~counted(targets), 0)
    log_p = outputs.log_softmax(dim=1).gather(1, classes[:, None])[:, 0]
    missed = (-torch.expm1(log_p)).clamp(min=torch.finfo(outputs.dtype).eps)
    each = missed**gamma * -log_p
    return _mean(each if class_weights is None else each * class_weights[classes], targets)


def dice(outputs: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """1 − the mean over the classes that a row has of (2 Σ p t + s) / (Σ p + Σ t + s), sums over its counted pixels:
    Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical image segmentation", 2016,
    without their squares.

    Args:
        smooth: s, in pixels.
    """
    if smooth <= 0:
        raise ValueError(f"smooth: {smooth} is out of range; allowed: above 0")
    known = counted(targets)
    classes = targets.long().masked_fill(~known, 0)
    shares = outputs.softmax(dim=1) * known[:, None]
    truth = F.one_hot(classes, outputs.shape[1]).movedim(3, 1).to(outputs.dtype) * known[:, None]
    there = truth.sum(dim=(2, 3))
    both = (shares * truth).sum(dim=(2, 3))
    overlap = (2 * both + smooth) / (shares.sum(dim=(2, 3)) + there + smooth)
    has = (there > 0).to(outputs.dtype)
    return ((1 - overlap) * has).sum(dim=1) / has.sum(dim=1).clamp(min=1)


def cross_entropy_dice(
    outputs: Tensor,
    targets: Tensor,
    share: float = 0.5,
    smooth: float = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """share · dice + (1 − share) · cross entropy, as nnU-Net adds them (Isensee et al., 2021)."""
    if not 0 <= share <= 1:
        raise ValueError(f"share: {share} is out of range; allowed: 0 to 1")
    each = cross_entropy(outputs, targets, label_smoothing, class_weights)
    return share * dice(outputs, targets, smooth) + (1 - share) * each


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "dice": dice,
    "cross_entropy_dice": cross_entropy_dice,
}


def _mean(each: Tensor, targets: Tensor) -> Tensor:
    known = counted(targets)
    total = torch.where(known, each, torch.zeros_like(each)).sum(dim=(1, 2))
    return total / known.sum(dim=(1, 2)).clamp(min=1)
