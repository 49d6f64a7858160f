"""Geometric augmentations and random erasing: flip, shift, crop, random_resized_crop, scale_jitter, erasing; and where
pixels go.

Images are [rows, channels, height, width]; every augmentation keeps this shape.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.pixels import BESIDE
from lehr.data.randomness import Draw

Outside = Literal["black", "reflect", "edge"]


def flip(
    images: Tensor,
    draw: Draw,
    *,
    probability: float = 0.5,
    direction: Literal["horizontal", "vertical"] = "horizontal",
) -> Tensor:
    """Mirrors each image with the given probability.

    Args:
        images: uint8 or float32; the result has the same type.
        draw: uses draw(0).
        probability: from 0 to 1.
        direction: horizontal swaps left and right, vertical swaps top and bottom.
    """
    dimension, chosen = 3 if direction == "horizontal" else 2, draw(0) < probability
    if images.is_cuda:  # listing the chosen rows would make the GPU wait for the CPU
        return torch.where(_per_row(chosen), images.flip(dimension), images)
    rows = chosen.nonzero()[:, 0]
    images = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    mirrored = images.index_select(0, rows).permute(0, 3, 1, 2).flip(dimension)
    return images.index_copy_(0, rows, mirrored.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def shift(images: Tensor, draw: Draw, *, pixels: int = 1) -> Tensor:
    """Shifts each image by −pixels to +pixels in both directions; the uncovered border is black."""
    return crop(images, draw, padding=pixels, outside="black")


def crop(images: Tensor, draw: Draw, *, padding: int = 4, outside: Outside = "reflect") -> Tensor:
    """Pads each image on all sides and cuts a window of the original size at a random position.

    Args:
        images: uint8 or float32; the result has the same type.
        draw: uses draw(0) and draw(1).
        padding: pixels on each side.
        outside: how to fill the padding: with the image mirrored at its edge (reflect), the edge repeated, or black.
    """
    top, left = ((draw(k) * (2 * padding + 1)).to(torch.int64) for k in (0, 1))
    rows, channels, height, width = images.shape
    padded = _pad(images.permute(0, 2, 3, 1), padding, outside)
    tall, wide = padded.shape[1:3]
    # Each line of a window is contiguous in memory. `segments` views every such line, overlapping; the windows' are
    # then selected.
    segments = padded.as_strided((rows * tall * wide - width + 1, width * channels), (channels, 1))
    row = torch.arange(rows, device=images.device) * tall + top
    lines = (row[:, None] + torch.arange(height, device=images.device)) * wide + left[:, None]
    return segments.index_select(0, lines.flatten()).view(rows, height, width, channels).permute(0, 3, 1, 2)


def random_resized_crop(images: Tensor, draw: Draw, *, smallest: float = 0.25, ratio: float = 4 / 3) -> Tensor:
    """Cuts a window of random area and aspect ratio at a random position and resizes it to the original size.

    Szegedy et al., "Going deeper with convolutions", 2015. Bilinear.

    Args:
        images: uint8 or float32; the result is float32.
        draw: uses draw(0) to draw(3).
        smallest: the smallest area of the window as a share of the image; the largest is the whole image.
        ratio: the aspect ratio (width / height) is drawn between 1 / ratio and ratio, uniformly on a log scale.
    """
    width, height, x, y = window(draw, smallest, ratio)
    zero = torch.zeros_like(width)
    rows = [torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)]
    return affine(images, torch.stack(rows, 1), outside="edge")


def window(draw: Draw, smallest: float, ratio: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The window of each row: width and height as shares of the image, and its centre (x, y) where the image extends
    from −1 to 1, as in the coordinates of affine_grid."""
    area = smallest + (1 - smallest) * draw(0)
    shape = torch.exp((2 * draw(1) - 1) * math.log(ratio))
    width, height = (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)
    return width, height, (2 * draw(2) - 1) * (1 - width), (2 * draw(3) - 1) * (1 - height)


def scale_jitter(images: Tensor, draw: Draw, *, zoom: float = 2.0) -> Tensor:
    """Makes each image smaller or larger, with its proportions, and puts it at a random position: what is cut off, or
    how much grey is beside it, is drawn too. Ghiasi et al., "Simple copy-paste is a strong data augmentation method for
    instance segmentation", 2021. Bilinear.

    Args:
        images: uint8 or float32; the result is float32.
        draw: uses draw(0) to draw(2).
        zoom: the factor is drawn between 1 / zoom and zoom, uniformly on a log scale.
    """
    share, x, y = _zoomed(draw, zoom)
    zero = torch.zeros_like(share)
    matrices = torch.stack([torch.stack([share, zero, x], 1), torch.stack([zero, share, y], 1)], 1)
    return affine(images.to(torch.float32) - BESIDE, matrices, outside="black") + BESIDE


def _zoomed(draw: Draw, zoom: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row the window that is shown: its side as a share of the image, and its centre, as `window` has it."""
    share = torch.exp((2 * draw(0) - 1) * math.log(zoom))
    return share, (2 * draw(1) - 1) * (1 - share), (2 * draw(2) - 1) * (1 - share)


# ── where pixels go: for each of the above a matrix [rows, 2, 3] in float64, from (x, y, 1) of a point, in pixels from
#    the upper left corner, to where it is afterwards, with the same draws ──


def flip_moves(
    size: tuple[int, int],
    draw: Draw,
    *,
    probability: float = 0.5,
    direction: Literal["horizontal", "vertical"] = "horizontal",
) -> Tensor:
    """Of `flip`. `size`: height and width of the images."""
    chosen, which = draw(0) < probability, 0 if direction == "horizontal" else 1
    moved = _stay(chosen)
    moved[chosen, which, which] = -1.0
    moved[chosen, which, 2] = float(size[1 - which])
    return moved


def shift_moves(size: tuple[int, int], draw: Draw, *, pixels: int = 1) -> Tensor:
    """Of `shift`."""
    return crop_moves(size, draw, padding=pixels)


def crop_moves(size: tuple[int, int], draw: Draw, *, padding: int = 4, outside: Outside = "reflect") -> Tensor:
    """Of `crop`. What a reflection shows a second time has no second label."""
    top, left = ((draw(k) * (2 * padding + 1)).to(torch.int64) for k in (0, 1))
    moved = _stay(top)
    moved[:, 0, 2], moved[:, 1, 2] = padding - left.double(), padding - top.double()
    return moved


def random_resized_crop_moves(
    size: tuple[int, int], draw: Draw, *, smallest: float = 0.25, ratio: float = 4 / 3
) -> Tensor:
    """Of `random_resized_crop`."""
    return _shown(size, *window(draw, smallest, ratio))


def scale_jitter_moves(size: tuple[int, int], draw: Draw, *, zoom: float = 2.0) -> Tensor:
    """Of `scale_jitter`."""
    share, x, y = _zoomed(draw, zoom)
    return _shown(size, share, share, x, y)


def _shown(size: tuple[int, int], width: Tensor, height: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where pixels go when windows (see `window`) become whole images."""
    moved = _stay(width)
    for which, (side, share, at) in enumerate(((size[1], width, x), (size[0], height, y))):
        # A point at u, from −1 to 1, is shown at (u − at) / share.
        moved[:, which, which] = 1 / share
        moved[:, which, 2] = side / 2 * (1 - (1 + at) / share)
    return moved


def _stay(like: Tensor) -> Tensor:
    """float64 [rows, 2, 3]: every point stays where it is."""
    return torch.eye(2, 3, dtype=torch.float64, device=like.device).repeat(len(like), 1, 1)


def erasing(
    images: Tensor, draw: Draw, *, probability: float = 0.5, smallest: float = 0.02, largest: float = 0.33
) -> Tensor:
    """Fills a random rectangle of each image with the image's mean colour, with the given probability.

    Zhong et al., "Random erasing data augmentation", 2020. The rectangle's aspect ratio is between 0.3 and 3.3.

    Args:
        images: uint8 or float32; the result has the same type.
        draw: uses draw(0) to draw(4).
        probability: from 0 to 1.
        smallest, largest: the rectangle's area as a share of the image.
    """
    height, width = images.shape[2:]
    area = smallest + (largest - smallest) * draw(1)
    shape = torch.exp((2 * draw(2) - 1) * math.log(1 / 0.3))
    tall, wide = (area * shape).sqrt().clamp(max=1) * height, (area / shape).sqrt().clamp(max=1) * width
    inside = rectangle(images, draw(3) * (height - tall), draw(4) * (width - wide), tall, wide)
    mean = images.to(torch.float32).mean(dim=(2, 3), keepdim=True)
    fill = mean if images.is_floating_point() else mean.round().to(images.dtype)
    return torch.where(_per_row(draw(0) < probability) & inside, fill, images)


def rectangle(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """bool [rows, 1, height, width]: the pixels inside each image's own rectangle.

    Args:
        images: for their size and device.
        top, left, tall, wide: [rows], position and size of the rectangles in pixels; rounded.
    """
    height, width = images.shape[2:]
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    top, left = top.round(), left.round()
    rows = (y >= top[:, None]) & (y < (top + tall.round())[:, None])
    columns = (x >= left[:, None]) & (x < (left + wide.round())[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def affine(images: Tensor, matrices: Tensor, outside: Literal["black", "edge"] = "black") -> Tensor:
    """Each image transformed by its own matrix, bilinear, as float32.

    Args:
        images: uint8 or float32.
        matrices: [rows, 2, 3], as `affine_grid` takes them.
        outside: what is beyond the image: black, or its edge repeated.
    """
    if not len(images):
        return images.to(torch.float32)
    grid = F.affine_grid(matrices.to(torch.float32), list(images.shape), align_corners=False)
    mode = "zeros" if outside == "black" else "border"
    return F.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode=mode, align_corners=False)


def _pad(images: Tensor, padding: int, outside: Outside) -> Tensor:
    """Contiguous [rows, height, width, channels] with `padding` more pixels on all four sides."""
    if outside == "black":
        return F.pad(images, (0, 0, padding, padding, padding, padding)).contiguous()
    for dimension in (2, 1):
        size, edge = images.shape[dimension], torch.arange(padding, device=images.device)
        index = torch.cat([edge - padding, edge + size])
        if outside == "reflect" and size > 1:
            index = index.remainder(2 * size - 2)
            index = torch.minimum(index, 2 * size - 2 - index)
        # Only the padding is gathered pixel by pixel; the images themselves are copied as contiguous blocks.
        before, after = images.index_select(dimension, index.clamp(0, size - 1)).split(padding, dimension)
        images = torch.cat([before, images, after], dimension)
    return images.contiguous()


def _per_row(choice: Tensor) -> Tensor:
    return choice[:, None, None, None]
