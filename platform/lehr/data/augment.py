"""Augmentation on the device, in batches, each row with its own parameters drawn from (seed, epoch, row id).

An augmentation is a function of (images, draw) and its options; `draw(k)` gives one uniform number in [0, 1) per row,
the k-th draw of this row in this epoch. To add one: write the function and name it in `AUGMENTATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.randomness import key, uniform

Draw = Callable[[int], Tensor]


def shift(images: Tensor, draw: Draw, *, pixels: int = 1) -> Tensor:
    """Moves each image by −pixels … +pixels in both directions; what comes in from outside is zero (black).

    Args:
        images: [rows, channels, height, width].
        pixels: the largest shift, in pixels.
    """
    rows, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (pixels, pixels, pixels, pixels))
    top, left = ((draw(k) * (2 * pixels + 1)).to(torch.int64) for k in (0, 1))
    y = top[:, None] + torch.arange(height, device=device)
    x = left[:, None] + torch.arange(width, device=device)
    row = torch.arange(rows, device=device)
    return padded.permute(0, 2, 3, 1)[row[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {"shift": shift}


class Augment:
    """The augmentations of a job, in order."""

    def __init__(self, steps: Sequence[tuple[str, dict[str, Any]]], seed: int) -> None:
        self._steps = [(AUGMENTATIONS[name], options) for name, options in steps]
        self._seed = seed

    def __call__(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Augments a batch [rows, channels, height, width]; row i uses the draws of (seed, epoch, ids[i])."""
        for number, (function, options) in enumerate(self._steps):
            stream = key(self._seed, "augment", epoch, number)
            images = function(images, lambda k, stream=stream: uniform(stream, ids, k), **options)
        return images
