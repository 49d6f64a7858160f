"""Augmentation on the device, in batches, each row with its own parameters drawn from (seed, epoch, row id).

An augmentation is a function (images, draw, **options) -> images: images are [rows, channels, height, width] with
values from 0 to 255, uint8 or float32; `draw(k)` gives one number in [0, 1) per row, its k-th draw in this epoch.
One that mixes images is a function (images, others, draw, **options) -> (images, share of the own label).
To add one: write the function and name it in `AUGMENTATIONS` or `MIXES`; in `RAGGED` too, if the shapes of what it
computes depend on what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.augment.draw import Draw
from lehr.data.augment.geometry import crop, erasing, flip, random_resized_crop, shift
from lehr.data.augment.mixing import cutmix, mixup
from lehr.data.augment.rand_augment import rand_augment
from lehr.data.dataset import UNREADABLE, Batch, MixPartners
from lehr.data.randomness import draws, key

__all__ = ["AUGMENTATIONS", "MIXES", "Augment", "Draw", "wrong_value"]

AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": flip,
    "shift": shift,
    "crop": crop,
    "random_resized_crop": random_resized_crop,
    "rand_augment": rand_augment,
    "erasing": erasing,
}
RAGGED = {"rand_augment"}  # a job with one of these has none of its augmentations compiled
MIXES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"mixup": mixup, "cutmix": cutmix}

# What the options of the augmentations may be; an option of one name means the same everywhere.
LIMITS: dict[str, tuple[float, float]] = {
    "probability": (0, 1),
    "pixels": (0, 10_000),
    "padding": (0, 10_000),
    "smallest": (0.001, 1),
    "largest": (0.001, 1),
    "ratio": (1, 10),
    "operations": (1, 16),
    "magnitude": (0, 30),
    "alpha": (0.01, 100),
}


def wrong_value(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first option with a number out of its range, and the sentence that says so."""
    for name, value in options.items():
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if isinstance(value, int | float) and not low <= value <= high:
            return name, f"{value} is out of range; allowed: {low} to {high}"
    if options.get("smallest", 0.001) > options.get("largest", 1):
        return "largest", f"{options['largest']} is below smallest; allowed: at least {options['smallest']}"
    return None


Steps = list[tuple[int, Callable[..., Tensor], dict[str, Any]]]
"""Augmentations in order: the place in the job, which numbers its draws; the function; its options."""

_DRAWS = 100  # how many draws each augmentation of a job has for itself


class Augment:
    """The augmentations of a job, in order.

    Mixing happens once, where the first mixing augmentation stands; if there are several, each image draws one of them.
    Its partner is the next row of the global batch, augmented by what stands before.

    Args:
        compiled: on GPUs, what comes before and after the mixing is compiled to a few kernels each. Augmentation is
            hundreds of small operations, and starting them one by one takes longer than a small network's step.
    """

    def __init__(self, steps: Sequence[tuple[str, dict[str, Any]]], seed: int, compiled: bool = False) -> None:
        self._seed = seed
        self._compiles = compiled and not RAGGED & {name for name, _ in steps}
        at = next((i for i, (name, _) in enumerate(steps) if name in MIXES), len(steps))
        rows = [(i, AUGMENTATIONS[name], options) for i, (name, options) in enumerate(steps) if name in AUGMENTATIONS]
        self._before = [step for step in rows if step[0] < at]
        self._after = [step for step in rows if step[0] > at]
        self._mixes = [(i, MIXES[name], options) for i, (name, options) in enumerate(steps) if name in MIXES]

    @property
    def mixes(self) -> bool:
        """Whether images are mixed: then a batch must come with its partners."""
        return bool(self._mixes)

    def __call__(self, batch: Batch, epoch: int, pairs: MixPartners | None = None, classes: int = 0) -> Batch:
        """The batch augmented; row i uses the draws of (seed, epoch, ids[i]) and of nothing else.

        Args:
            pairs: for mixing, which rows of `batch` are to come back, and the partner of each.
            classes: for mixing, the number of classes; targets come back as float64 [rows, classes].
        """
        stream = key(self._seed, "augment", epoch)
        images = self._apply(self._before, batch.inputs, stream, batch.ids)
        if not self._mixes or pairs is None:
            return Batch(self._apply(self._after, images, stream, batch.ids), batch.targets, batch.ids)
        known = (batch.targets != UNREADABLE)[:, None]  # the others count nowhere
        labels = F.one_hot(batch.targets.clamp(min=0), classes).to(torch.float64) * known
        ids, own, others = batch.ids[pairs.own], images[pairs.own], images[pairs.partners]
        mixed, share = self._mix(own, others, draws(stream, ids))
        targets = share[:, None] * labels[pairs.own] + (1 - share)[:, None] * labels[pairs.partners]
        return Batch(self._apply(self._after, mixed, stream, ids), targets, ids)

    def _apply(self, steps: Steps, images: Tensor, stream: int, ids: Tensor) -> Tensor:
        if not steps or not len(images):
            return images
        if self._compiles and images.is_cuda:
            # As a tensor, since whatever is a plain number is compiled in; filled there, so that nothing waits.
            known = torch.full((), stream, dtype=torch.int64, device=images.device)
            return _compiled()(steps, images, known, ids)
        return _in_turn(steps, images, stream, ids)

    def _mix(self, images: Tensor, others: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        if len(self._mixes) == 1:
            number, function, options = self._mixes[0]
            return function(images, others, _of_step(draw, number), **options)
        choice = (draw(_DRAWS * self._mixes[0][0] + _DRAWS - 1) * len(self._mixes)).to(torch.int64)
        mixed, share = images, torch.ones(len(images), dtype=torch.float64, device=images.device)
        for k, (number, function, options) in enumerate(self._mixes):
            some, kept = function(images, others, _of_step(draw, number), **options)
            mixed = torch.where((choice == k)[:, None, None, None], some, mixed)
            share = torch.where(choice == k, kept, share)
        return mixed, share


def _in_turn(steps: Steps, images: Tensor, stream: int | Tensor, ids: Tensor) -> Tensor:
    """The images after one step after the other; row i draws from (stream, ids[i])."""
    draw = draws(stream, ids)
    for number, function, options in steps:
        images = function(images, _of_step(draw, number), **options)
    return images


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_in_turn, dynamic=False)


def _of_step(draw: Draw, number: int) -> Draw:
    return lambda k: draw(_DRAWS * number + k)
