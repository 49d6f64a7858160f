"""Networks by name, or the user's own.

A model is a callable (channels, outputs, **options) -> torch.nn.Module that maps images [rows, channels, height, width]
to [rows, outputs]. To add one: write it and name it in `MODELS`, in `find.py`.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lehr.models.cifar import CifarResNet, ResNet9, WideResNet
from lehr.models.find import MODELS, OURS, adapt_channels, find
from lehr.models.small_cnn import SmallCNN
from lehr.models.weights import deepen_head, head_of, start_from

__all__ = [
    "MODELS",
    "CifarResNet",
    "ResNet9",
    "SmallCNN",
    "WideResNet",
    "adapt_channels",
    "build",
    "check",
    "check_outputs",
    "deepen_head",
    "find",
    "head_of",
    "start_from",
]


def build(
    name: str, channels: int, outputs: int, options: dict[str, Any], seed: int, *, trusted: bool = True
) -> nn.Module:
    """The named network with weights drawn from the seed; the global random state is left as it was.

    Args:
        trusted: name and options come from the user, and not from a file that somebody else may have written.

    Raises:
        ValueError: there is no such network, or an option has a value that it refuses.
    """
    model, _ = find(name, trusted=trusted)
    parameters = inspect.signature(model).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters}
    sizes = dict(zip(OURS, (channels, outputs), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(**{key: value for key, value in sizes.items() if takes_any or key in named}, **options)


def check(name: str, shape: tuple[int, int, int], outputs: int, options: dict[str, Any]) -> None:
    """Checks that the network takes images of `shape` (channels, height, width), without computing anything.

    The user's own are not checked, since they may do what only works with numbers.

    Raises:
        ValueError: it refuses an option or the images.
    """
    if ":" in name:
        return
    try:
        with torch.device("meta"):
            model = build(name, shape[0], outputs, options, seed=0)
            images = torch.zeros(2, *shape)
    except NotImplementedError:  # a few networks need numbers to be built
        model, images = build(name, shape[0], outputs, options, seed=0), torch.zeros(2, *shape)
    check_outputs(model, name, images, outputs)


@torch.no_grad()
def check_outputs(model: nn.Module, name: str, images: Tensor, outputs: int) -> None:
    """Raises ValueError unless the network maps images [rows, …] to [rows, outputs]."""
    mode = model.training
    size = " × ".join(map(str, images.shape[2:]))
    try:
        found = model.eval()(images)
    except Exception as error:  # whatever the layers of a network raise
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"{name} does not take images of {size} pixels with {images.shape[1]} channels"
        raise ValueError(f"{what}: {why}") from error
    model.train(mode)
    if not isinstance(found, Tensor) or found.shape != (len(images), outputs):
        shown = list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        allowed = f"[{len(images)}, {outputs}], a logit for each class"
        raise ValueError(f"{name} returns {shown} for {len(images)} images; allowed: {allowed}")
