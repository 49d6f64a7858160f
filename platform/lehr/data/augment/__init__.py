"""Augmentation on the device, in batches, each row with its own parameters drawn from (seed, epoch, row id).

An augmentation is a function (images, draw, **options) -> images. Images are [rows, channels, height, width] with
values from 0 to 255, uint8 or float32. `draw(k)` returns the k-th random number of every row in this epoch, in [0, 1).
One that mixes images is a function (images, others, draw, **options) -> (images, share of the own label).
Those of the user's own, and torchvision's, are in `own.py`.

To add one: a function in a module here, and its line in `AUGMENTATIONS`, or in `MIXES` if it mixes images. A number
among its options whose name is new needs its range in `LIMITS`; an augmentation that computes tensors whose shapes
depend on the draws belongs in `DYNAMIC_SHAPES` too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.data.augment.geometry import (
    crop,
    crop_moves,
    erasing,
    flip,
    flip_moves,
    random_resized_crop,
    random_resized_crop_moves,
    scale_jitter,
    scale_jitter_moves,
    shift,
    shift_moves,
)
from lehr.data.augment.mixing import cutmix, mixup
from lehr.data.augment.own import Own, is_own
from lehr.data.augment.rand_augment import rand_augment
from lehr.data.dataset import UNREADABLE, Batch, MixPartners
from lehr.data.randomness import Draw, draws, key

__all__ = ["AUGMENTATIONS", "MIXES", "Augment", "Own", "is_own", "wrong_value"]

AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": flip,
    "shift": shift,
    "crop": crop,
    "random_resized_crop": random_resized_crop,
    "scale_jitter": scale_jitter,
    "rand_augment": rand_augment,
    "erasing": erasing,
}
MOVES: dict[str, Callable[..., Tensor]] = {
    "flip": flip_moves,
    "shift": shift_moves,
    "crop": crop_moves,
    "random_resized_crop": random_resized_crop_moves,
    "scale_jitter": scale_jitter_moves,
}
"""Of each augmentation that moves pixels: where they go, for labels that are places in the image."""
PIXELS_ONLY = {"erasing"}
"""Augmentations that leave every pixel where it is."""
MIXES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"mixup": mixup, "cutmix": cutmix}
DYNAMIC_SHAPES = {"rand_augment"}  # these cannot be compiled; nor are the other augmentations of such a job

# Lowest and highest values of the options. An option of one name means the same in all augmentations.
LIMITS: dict[str, tuple[float, float]] = {
    "probability": (0, 1),
    "pixels": (0, 10_000),
    "padding": (0, 10_000),
    "smallest": (0.001, 1),
    "largest": (0.001, 1),
    "ratio": (1, 10),
    "zoom": (1, 10),
    "operations": (1, 16),
    "magnitude": (0, 30),
    "alpha": (0.01, 100),
}


def wrong_value(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first option whose number is out of range, and the sentence that says so; None if there is none."""
    for name, value in options.items():
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if isinstance(value, int | float) and not low <= value <= high:
            return name, f"{value} is out of range; allowed: {low} to {high}"
    if options.get("smallest", 0.001) > options.get("largest", 1):
        return "largest", f"{options['largest']} is below smallest; allowed: at least {options['smallest']}"
    return None


Move = Callable[[Any, Tensor, tuple[int, int]], Any]
"""From targets, matrices [rows, 2, 3] and the size of the images to the targets where the pixels are now."""
Choose = Callable[[Any, Draw], Any]
"""From targets and the random numbers of their rows in an epoch to what is learned of them in it."""
Steps = list[tuple[int, Callable[..., Tensor], dict[str, Any]]]
"""Augmentations in order: the position in the job, which numbers the draws; the function; its options."""

_DRAWS = 100  # random numbers per row that each augmentation of a job may draw


class Augment:
    """The augmentations of a job, in order.

    Mixing happens once, at the position of the first mixing augmentation. If there are several, one of them is drawn
    for each image. The partner of an image is the next row of the global batch, augmented by the steps before.

    Args:
        steps: name and options of each augmentation, in the job's order; one that is not in the tables has a function
            in `own`.
        seed: the job's seed.
        compiled: on GPUs, compile the steps before and after the mixing to a few kernels each. Augmentation consists
            of hundreds of small operations, and launching them one by one takes longer than a small network's step.
        own: augmentations that do not come with lehr, by position; they are never compiled, nor are the others then.
        move: moves the targets of a task whose labels are places in the image along with the pixels.
        choose: chooses what is learned of the targets in an epoch, where a row has several.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, dict[str, Any]]],
        seed: int,
        compiled: bool = False,
        own: Mapping[int, Own] | None = None,
        move: Move | None = None,
        choose: Choose | None = None,
    ) -> None:
        self._seed, self._own, self._move, self._choose = seed, own or {}, move, choose
        self._moves: Steps = [(i, MOVES[name], options) for i, (name, options) in enumerate(steps) if name in MOVES]
        self._compiles = compiled and not self._own and not DYNAMIC_SHAPES & {name for name, _ in steps}
        mixing = next((i for i, (name, _) in enumerate(steps) if name in MIXES), len(steps))
        plain: Steps = [
            (i, self._own[i], {}) if i in self._own else (i, AUGMENTATIONS[name], options)
            for i, (name, options) in enumerate(steps)
            if name not in MIXES
        ]
        self._before = [step for step in plain if step[0] < mixing]
        self._after = [step for step in plain if step[0] > mixing]
        self._mixes = [(i, MIXES[name], options) for i, (name, options) in enumerate(steps) if name in MIXES]

    def probe(self, channels: int, height: int, width: int) -> None:
        """Tries the augmentations that do not come with lehr on images of this size.

        Raises:
            ValueError: one of them cannot be used; the sentence begins with its position in the job.
            OwnCodeError: one of them failed.
        """
        for number, own in self._own.items():
            try:
                own.probe(channels, height, width)
            except ValueError as error:
                raise ValueError(f"{number}: {error}") from error

    @property
    def mixes(self) -> bool:
        """Whether images are mixed. If so, a batch must come with its partners."""
        return bool(self._mixes)

    def __call__(self, batch: Batch, epoch: int, partners: MixPartners | None = None, classes: int = 0) -> Batch:
        """The batch augmented. Row i depends on (seed, epoch, ids[i]) alone.

        Args:
            batch: as gathered, pixels uint8.
            epoch: counts from 0.
            partners: for mixing, which rows of `batch` to return, and the partner of each.
            classes: for mixing, the number of classes; targets are returned as float64 [rows, classes].
        """
        stream = key(self._seed, "augment", epoch)
        images = self._apply(self._before, batch.inputs, stream, batch.ids)
        if not self._mixes or partners is None:
            targets = self._moved(batch.targets, tuple(batch.inputs.shape[2:]), stream, batch.ids)
            return Batch(self._apply(self._after, images, stream, batch.ids), targets, batch.ids)
        known = (batch.targets != UNREADABLE)[:, None]  # unreadable images have no target
        labels = F.one_hot(batch.targets.clamp(min=0), classes).to(torch.float64) * known
        ids, own, others = batch.ids[partners.own], images[partners.own], images[partners.others]
        mixed, share = self._mix(own, others, draws(stream, ids))
        targets = share[:, None] * labels[partners.own] + (1 - share)[:, None] * labels[partners.others]
        return Batch(self._apply(self._after, mixed, stream, ids), targets, ids)

    def _moved(self, targets: Any, size: tuple[int, ...], stream: int, ids: Tensor) -> Any:
        """The targets after all steps that move pixels, with the draws that these had."""
        if self._choose is not None and len(ids):
            targets = self._choose(targets, draws(key(stream, "targets"), ids))
        if self._move is None or not self._moves or not len(ids):
            return targets
        draw, whole = draws(stream, ids), (size[0], size[1])
        for number, function, options in self._moves:
            targets = self._move(targets, function(whole, _draw_of_step(draw, number), **options), whole)
        return targets

    def _apply(self, steps: Steps, images: Tensor, stream: int, ids: Tensor) -> Tensor:
        if not steps or not len(images):
            return images
        if self._compiles and images.is_cuda:
            # A tensor, since a plain number would be compiled in. Created on the device, which needs no waiting.
            stream_there = torch.full((), stream, dtype=torch.int64, device=images.device)
            return _compiled()(steps, images, stream_there, ids)
        return _apply_all(steps, images, stream, ids)

    def _mix(self, images: Tensor, others: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        if len(self._mixes) == 1:
            number, function, options = self._mixes[0]
            return function(images, others, _draw_of_step(draw, number), **options)
        choice = (draw(_DRAWS * self._mixes[0][0] + _DRAWS - 1) * len(self._mixes)).to(torch.int64)
        mixed, share = images, torch.ones(len(images), dtype=torch.float64, device=images.device)
        for k, (number, function, options) in enumerate(self._mixes):
            some, kept = function(images, others, _draw_of_step(draw, number), **options)
            mixed = torch.where((choice == k)[:, None, None, None], some, mixed)
            share = torch.where(choice == k, kept, share)
        return mixed, share


def _apply_all(steps: Steps, images: Tensor, stream: int | Tensor, ids: Tensor) -> Tensor:
    """The images after all steps; row i draws from (stream, ids[i])."""
    draw = draws(stream, ids)
    for number, function, options in steps:
        images = function(images, _draw_of_step(draw, number), **options)
    return images


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_apply_all, dynamic=False)


def _draw_of_step(draw: Draw, number: int) -> Draw:
    return lambda k: draw(_DRAWS * number + k)
