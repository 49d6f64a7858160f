"""Augmentations that mix each image with another of the same global batch: mixup and cutmix.

Each returns the mixed images [rows, channels, height, width] and the share of the image's own label in the target,
float64 [rows]; the rest of the target is the other image's label.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lehr.data.augment.geometry import rectangle
from lehr.data.randomness import Draw


def mixup(
    images: Tensor, others: Tensor, draw: Draw, *, alpha: float = 0.2, probability: float = 1.0
) -> tuple[Tensor, Tensor]:
    """share × image + (1 − share) × other, with the share drawn from Beta(alpha, alpha). Pixels become float32.

    Zhang et al., "mixup: Beyond empirical risk minimization", 2018.

    Args:
        images, others: uint8 or float32, of the same shape.
        draw: uses draw(0) and draw(1).
        alpha: above 0. Small values leave most images nearly unchanged; 1 draws the share uniformly.
        probability: share of the images that are mixed.
    """
    share = torch.where(draw(0) < probability, beta(draw(1), alpha), 1.0)
    weight = share.to(torch.float32)[:, None, None, None]
    return torch.lerp(others.to(torch.float32), images.to(torch.float32), weight), share


def cutmix(
    images: Tensor, others: Tensor, draw: Draw, *, alpha: float = 1.0, probability: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Pastes a rectangle of the other image at a random position, its area drawn as 1 − Beta(alpha, alpha).

    Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", 2019. The
    rectangle is clipped at the edge; the share of the own label is the share of the image's own pixels.

    Args:
        images, others: of the same shape and type, which is that of the result.
        draw: uses draw(0) to draw(3).
        alpha: above 0; 1 draws the area uniformly.
        probability: share of the images that are mixed.
    """
    height, width = images.shape[2:]
    side = torch.where(draw(0) < probability, 1 - beta(draw(1), alpha), 0.0).sqrt()
    tall, wide = (side * height).round(), (side * width).round()
    pasted = rectangle(images, draw(2) * height - tall / 2, draw(3) * width - wide / 2, tall, wide)
    return torch.where(pasted, others, images), 1 - pasted.to(torch.float64).mean(dim=(1, 2, 3))


def beta(uniform: Tensor, alpha: float) -> Tensor:
    """float64 numbers from Beta(alpha, alpha): its inverse distribution function at the uniform numbers in [0, 1).

    Raises:
        ValueError: alpha is not above 0.
    """
    if alpha <= 0:
        raise ValueError(f"alpha: {alpha} is too small; allowed: above 0")
    table = _table(alpha, uniform.device)
    position = uniform * (len(table) - 1)
    left = position.to(torch.int64)
    return torch.lerp(table[left], table[left + 1], position - left)


@lru_cache
def _table(alpha: float, device: torch.device) -> Tensor:
    """The quantiles on a device. Cached, since a copy in each step would make a GPU wait for the CPU."""
    return torch.from_numpy(_quantiles(alpha)).to(device)


@lru_cache
def _quantiles(alpha: float, points: int = 4097) -> np.ndarray:
    """float64 [points]: quantiles of Beta(alpha, alpha) at evenly spaced probabilities, by integrating its density.

    With s = x^alpha the density on [0, 1/2] becomes (1 − s^(1/alpha))^(alpha − 1), which is smooth for every alpha.
    """
    s = np.linspace(0.0, 0.5**alpha, 65537)
    density = (1 - s ** (1 / alpha)) ** (alpha - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.linspace(0.0, 0.5, (points + 1) // 2)
    left = np.interp(half, below * (0.5 / below[-1]), s) ** (1 / alpha)
    return np.concatenate([left, 1 - left[-2::-1]])
