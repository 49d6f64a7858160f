"""Boxes move with the pixels. They are [total, 6] in a `lehr.data.targets.RaggedTensor`, each with its class, its sides
x0, y0, x1, y1 in pixels, from the upper left corner of the image, and 1 where it is around many things, else 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LEAST_SEEN = 0.25
"""Share of a box that must stay inside the image, or it is left out: what is hardly seen cannot be found."""


def move_boxes(targets: Any, matrices: Tensor, size: tuple[int, int]) -> Any:
    """The boxes after their images were moved: around their four corners, clipped to the image. Boxes of which less
    than `LEAST_SEEN` stays inside, or less than a pixel on a side, are left out.

    Args:
        matrices: float64 [rows, 2, 3], as `Task.move` has them. size: height and width of the images.
    """
    boxes, matrix = targets.values, matrices[targets.row_of]
    x0, y0, x1, y1 = boxes[:, 1:5].double().unbind(1)
    corners = torch.stack([torch.stack([x, y, torch.ones_like(x)], 1) for x in (x0, x1) for y in (y0, y1)], 2)
    moved = matrix @ corners  # [total, 2, 4]
    low, high = moved.amin(2), moved.amax(2)
    limit = torch.tensor([size[1], size[0]], dtype=torch.float64, device=boxes.device)
    seen_low, seen_high = low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)
    sides, before = seen_high - seen_low, high - low
    kept = (sides >= 1).all(1) & (sides.prod(1) >= LEAST_SEEN * before.prod(1))
    seen = torch.cat([seen_low, seen_high], 1).to(boxes.dtype)
    values = torch.cat([boxes[:, :1], seen, boxes[:, 5:]], 1)[kept]
    lengths = torch.zeros_like(targets.lengths).index_add_(0, targets.row_of, kept.to(torch.int64))
    return targets.from_lengths(values, lengths, targets.known)
