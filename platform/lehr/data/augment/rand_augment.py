"""RandAugment: a few operations per image, drawn from a fixed list, all with the same magnitude.

Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020. The sign or
direction of an operation is drawn for each image. In the table, level = magnitude / 30.

| operation | effect |
|---|---|
| identity | nothing |
| rotate | by ±30° × level |
| shear_x, shear_y | by ±0.3 × level |
| translate_x, translate_y | by ±45 % × level of the image's width or height |
| brightness, colour, contrast, sharpness | blends with black, grey, its mean or a blurred copy: 1 ± 0.9 × level |
| posterize | keeps the 8 − 4 × level most significant bits |
| solarize | inverts values of at least 255 × (1 − level) |
| autocontrast | stretches each channel to 0 … 255 |
| equalize | equalizes each channel's histogram |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.augment.geometry import affine
from lehr.data.randomness import Draw


def rand_augment(images: Tensor, draw: Draw, *, operations: int = 2, magnitude: float = 9.0) -> Tensor:
    """Applies random operations of the list above to each image, drawn independently for each image.

    Args:
        images: [rows, channels, height, width], uint8 or float32; the result is float32.
        draw: uses two draws for each operation.
        operations: how many to apply, one after the other.
        magnitude: from 0 to 30.
    """
    level = magnitude / 30
    images = images.to(torch.float32, copy=True).contiguous()
    for number in range(operations):
        choice = (draw(2 * number) * len(OPERATIONS)).to(torch.int64)
        sign = torch.where(draw(2 * number + 1) < 0.5, -1.0, 1.0).to(torch.float32)
        geometric = []
        for k, operation in enumerate(OPERATIONS.values()):
            rows = (choice == k).nonzero().squeeze(1)
            if operation in MOVES and len(rows):
                geometric.append((rows, MOVES[operation](sign[rows] * level, images.shape[2] / images.shape[3])))
            elif operation in COLOURS and len(rows):
                images[rows] = COLOURS[operation](images[rows], sign[rows] * level)
        if geometric:  # all of them in one pass
            rows = torch.cat([rows for rows, _ in geometric])
            images[rows] = affine(images[rows], torch.cat([matrices for _, matrices in geometric]))
    return images.clamp_(0, 255)  # rounding errors may exceed the range slightly


def _matrix(rows: Tensor, xx: Tensor | float, xy: Tensor | float, x: Tensor | float, *second: Tensor | float) -> Tensor:
    """[rows, 2, 3] from its six entries."""
    entries = [torch.as_tensor(e, dtype=rows.dtype, device=rows.device).expand_as(rows) for e in (xx, xy, x, *second)]
    return torch.stack(entries, 1).view(-1, 2, 3)


def _rotate(level: Tensor, aspect: float) -> Tensor:
    cos, sin = torch.cos(level * math.radians(30)), torch.sin(level * math.radians(30))
    return _matrix(level, cos, -sin * aspect, 0, sin / aspect, cos, 0)


# From the signed level [rows] and height / width to the matrices [rows, 2, 3].
MOVES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rotate": _rotate,
    "shear_x": lambda level, aspect: _matrix(level, 1, 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda level, aspect: _matrix(level, 1, 0, 0, 0.3 * level, 1, 0),
    "translate_x": lambda level, aspect: _matrix(level, 1, 0, 0.9 * level, 0, 1, 0),
    "translate_y": lambda level, aspect: _matrix(level, 1, 0, 0, 0, 1, 0.9 * level),
}


def _grey(images: Tensor) -> Tensor:
    """float32 [rows, 1, height, width]: luma (ITU-R 601); the mean of the channels if they are not three."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _blend(images: Tensor, other: Tensor, level: Tensor) -> Tensor:
    """other + factor × (image − other) with the factor 1 ± 0.9 × level; a factor of 1 returns the image itself."""
    factor = (1 + 0.9 * level)[:, None, None, None]
    return (other + factor * (images - other)).clamp(0, 255)


def _blurred(images: Tensor) -> Tensor:
    channels = images.shape[1]
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)


def _posterize(images: Tensor, level: Tensor) -> Tensor:
    step = 2.0 ** (4 * level.abs()).round()[:, None, None, None]
    return (images.clamp(min=0) / step).floor() * step  # −1e-6, a rounding error of a rotation, would become −16


def _solarize(images: Tensor, level: Tensor) -> Tensor:
    return torch.where(images >= 255 * (1 - level.abs())[:, None, None, None], 255 - images, images)


def _autocontrast(images: Tensor, level: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1)), images)


def _equalize(images: Tensor, level: Tensor) -> Tensor:
    values = images.flatten(2).round().to(torch.int64).clamp(0, 255)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    # All pixels except those of the highest value are spread over 255 steps, as Pillow does.
    highest = counts.gather(2, values.amax(dim=2, keepdim=True))
    step = (values.shape[2] - highest) // 255
    before = counts.cumsum(dim=2) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    even = table.gather(2, values).to(images.dtype).view_as(images)
    return torch.where((step > 0)[..., None], even, images)


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda images, level: _blend(images, torch.zeros_like(images), level),
    "colour": lambda images, level: _blend(images, _grey(images), level),
    "contrast": lambda images, level: _blend(images, _grey(images).mean(dim=(2, 3), keepdim=True), level),
    "sharpness": lambda images, level: _blend(images, _blurred(images), level),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}

OPERATIONS = dict(enumerate(["identity", *MOVES, *COLOURS]))
