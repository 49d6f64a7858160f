"""Masks move with the pixels, by nearest pixels: uint8 [rows, height, width]."""

from __future__ import annotations

import torch
from torch import Tensor

from lehr.tasks.forms import NOT_COUNTED


def move_masks(masks: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """The masks after their images were moved. Pixels that came in from outside are not counted.

    Args:
        masks: uint8 [rows, height, width].
        matrices: float64 [rows, 2, 3], as `Task.move` has them. size: height and width of the images.
    """
    height, width = size
    y = torch.arange(height, device=masks.device, dtype=torch.float64) + 0.5
    x = torch.arange(width, device=masks.device, dtype=torch.float64) + 0.5
    # Where the middle of each pixel was: the matrices have no shear and no rotation, so x and y are moved alone.
    left = ((x - matrices[:, 0, 2:]) / matrices[:, 0, :1]).floor().long()  # [rows, width]
    top = ((y - matrices[:, 1, 2:]) / matrices[:, 1, 1:2]).floor().long()  # [rows, height]
    inside = ((top >= 0) & (top < height))[:, :, None] & ((left >= 0) & (left < width))[:, None, :]
    places = top.clamp(0, height - 1)[:, :, None] * width + left.clamp(0, width - 1)[:, None, :]
    moved = masks.flatten(1).gather(1, places.flatten(1)).view_as(masks)
    return torch.where(inside, moved, torch.full_like(moved, NOT_COUNTED))
