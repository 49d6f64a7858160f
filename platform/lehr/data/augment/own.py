"""Augmentations that do not come with lehr: the user's own by import path, and torchvision's by name.

Two forms, told apart by their signature:

- a function of a batch, `(images, draw, **options) -> images`, as lehr's own are;
- a transform of one image: a class that is built with its options and whose objects are called with an image, as
  those of `torchvision.transforms.v2` are, or a function `(image, **options) -> image`. An image is uint8 [channels,
  height, width]. It may draw from the generators of torch, numpy and Python: before each image they are seeded by
  (seed, epoch, row, position in the job), and afterwards they are as they were.

Either returns what it got, in the same shape: uint8, or floating-point numbers from 0 to 255.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehr import trust
from lehr.data.randomness import Draw, seed_torch
from lehr.models.vision import torchvision
from lehr.own_code import OwnCodeError, calling, shape

BATCH = ("images", "draw")
"""The parameters of a function of a batch."""
IMAGE = "image"
FORMS = "a function (images, draw, **options), a function (image, **options), or a class whose objects take an image"


def is_own(name: str) -> bool:
    """Whether an augmentation of this name is to be looked for here."""
    return ":" in name


class Own:
    """An augmentation as a function of a batch, whichever form it has.

    Args:
        path: its import path.
        options: what it is called or built with, plain values.

    Raises:
        ValueError: there is none of that name, or it has neither form.
        Untrusted: nobody allowed it.
        OwnCodeError: it cannot be built.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.path, self._options = path, dict(options)
        self.found: Callable[..., Any] = _found(path, options)
        names = _parameters(self.found)
        self._of_batch = not inspect.isclass(self.found) and set(BATCH) <= set(names)
        self.skip = BATCH if self._of_batch else () if inspect.isclass(self.found) else (IMAGE,)
        """Those of its parameters that a job may not set."""
        if not inspect.isclass(self.found) and not self._of_batch and IMAGE not in names:
            raise ValueError(f'"{path}" is not an augmentation; allowed: {FORMS}')
        self._transform: Callable[..., Any] | None = None

    def build(self) -> Own:
        """The same, ready to be called, once its options are known to be right."""
        if inspect.isclass(self.found):
            with calling(self.path):
                built: Any = self.found(**self._options)
            if not callable(built):
                raise ValueError(f'objects of "{self.path}" cannot be called; allowed: {FORMS}')
            self._transform = built
        return self

    def __call__(self, images: Tensor, draw: Draw) -> Tensor:
        """The images augmented, uint8 or float32.

        Raises:
            OwnCodeError: it failed, or the result is no image, has another shape, or values that are not finite.
        """
        return self._batch(images, draw) if self._of_batch else self._one_by_one(images, draw)

    def _batch(self, images: Tensor, draw: Draw) -> Tensor:
        with calling(self.path, images=images):
            result = self.found(images, draw, **self._options)
        return self._checked(result, images)

    def _one_by_one(self, images: Tensor, draw: Draw) -> Tensor:
        pixels = images if images.dtype == torch.uint8 else images.round().clamp(0, 255).to(torch.uint8)
        # 53 random bits of (seed, epoch, row, position): all that the generators are seeded with.
        seeds = (draw(0) * 2.0**53).to(torch.int64).tolist()
        results = []
        with _generators_kept(images.device):
            for image, seed in zip(pixels, seeds, strict=True):
                _seed(seed, images.device)
                given = image.clone(memory_format=torch.contiguous_format)
                with calling(self.path, image=given):
                    result = self._transform(given) if self._transform else self.found(given, **self._options)
                results.append(self._checked(result, image))
        if any(result.is_floating_point() for result in results):  # a transform may leave some images alone
            results = [result.to(torch.float32) for result in results]
        return torch.stack(results) if results else pixels

    def _checked(self, result: Any, images: Tensor) -> Tensor:
        """The result as uint8 or float32."""
        if not isinstance(result, Tensor) or result.shape != images.shape:
            kind = shape(result) if isinstance(result, Tensor) else f"a {type(result).__name__}"
            what = f"{self.path} returned {kind} for {shape(images)}"
            raise OwnCodeError(f"{what}; allowed: a tensor of the same shape")
        if result.dtype == torch.uint8:
            return result.as_subclass(Tensor)
        result = result.as_subclass(Tensor).detach().to(torch.float32)
        if not bool(torch.isfinite(result).all()):
            raise OwnCodeError(f"{self.path} returned values that are not finite; allowed: numbers from 0 to 255")
        return result

    def probe(self, channels: int, height: int, width: int) -> None:
        """Tries it on a few images of noise.

        Raises:
            ValueError: it gives other results the second time, or in other company, or values from 0 to 1.
            OwnCodeError: it failed.
        """
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (4, channels, height, width), dtype=torch.uint8, generator=generator)
        numbers = torch.rand(4, 128, generator=generator, dtype=torch.float64)

        def run(rows: list[int], seed: int) -> Tensor:
            with _generators_kept(images.device):
                _seed(seed, images.device)
                return self(images[rows].clone(), lambda k: numbers[rows, k % 128]).to(torch.float32)

        whole, again, apart = run([0, 1, 2, 3], 1), run([0, 1, 2, 3], 2), run([3, 1], 3)
        if not whole.equal(again):
            drawn = "draw(k) gives" if self._of_batch else "those of torch, numpy and random give"
            what = f"{self.path} gives another result for the same images the second time"
            raise ValueError(f"{what}; allowed: random numbers that {drawn}, and no memory of earlier calls")
        if not torch.allclose(whole[[3, 1]], apart, atol=1e-2):
            what = f"{self.path} gives an image another result in another batch"
            raise ValueError(f"{what}; allowed: an augmentation of each row by itself, with its own draw(k)")
        if 0 < float(whole.max()) <= 1:
            raise ValueError(f"{self.path} returned values from 0 to 1; allowed: from 0 to 255, as it was given")


def _found(path: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    if path.startswith(trust.TRANSFORMS):
        return _of_torchvision(path)
    try:
        found = trust.load(trust.Call("augmentation", path, dict(options)))
    except ValueError as error:
        raise ValueError(f'"{path}" is not an augmentation: {error}') from None
    if not callable(found):
        raise ValueError(f'"{path}" is not an augmentation; allowed: {FORMS}')
    return found


def _of_torchvision(path: str) -> Callable[..., Any]:
    """One of torchvision's own transforms: a class that it publishes, and nothing else that can be reached there."""
    torchvision()
    from torchvision.transforms import v2

    name = path.removeprefix(trust.TRANSFORMS)
    known = {
        key: value
        for key, value in vars(v2).items()
        if inspect.isclass(value) and issubclass(value, v2.Transform) and value is not v2.Transform
    }
    if name in ("CutMix", "MixUp"):
        raise ValueError(f"{path} mixes the images of a batch; allowed: {name.lower()}")
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"torchvision.transforms.v2 has no transform {name}{hint}")
    return known[name]


def _parameters(found: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return []


def _seed(seed: int, device: torch.device) -> None:
    seed_torch(seed, device)
    np.random.seed(seed % 2**32)  # the one that the user's transform may draw from
    random.seed(seed)


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """The process's random generators are afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
