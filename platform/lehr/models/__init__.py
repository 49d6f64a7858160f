"""Networks by name, or the user's own.

A model is a callable (channels, outputs, **options) -> torch.nn.Module that maps images [rows, channels, height, width]
to [rows, outputs]. The built-in ones are listed in `registry.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lehr.models.find import SIZE_PARAMETERS, adapt_channels, find
from lehr.models.registry import MODELS
from lehr.models.weights import deepen_head, head_of, start_from

__all__ = [
    "MODELS",
    "adapt_channels",
    "build",
    "check",
    "check_outputs",
    "deepen_head",
    "find",
    "head_of",
    "start_from",
]


Around = Callable[[nn.Module], nn.Module]
"""Makes of a network the one that a task trains."""


def build(
    name: str, channels: int, outputs: int, options: dict[str, Any], seed: int, around: Around | None = None
) -> nn.Module:
    """The named network with random weights that depend on the seed alone. torch's global random state is not changed.

    Args:
        name: a built-in, torchvision or timm name, or `my_package.nets:Net`.
        channels: input channels.
        outputs: size of the head.
        options: the network's own options.
        seed: the seed of the weights.
        around: what is made of it.

    Raises:
        ValueError: there is no such network, or it does not accept an option's value.
        Untrusted: the name is code that nobody allowed.
    """
    model, taken = find(name, options)
    if reserved := sorted(set(taken) & set(options)):
        raise ValueError(f"{name} does not take {reserved[0]}, which is not an option of the network")
    parameters = inspect.signature(model).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters}
    sizes = dict(zip(SIZE_PARAMETERS, (channels, outputs), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model(**{key: value for key, value in sizes.items() if takes_any or key in named}, **options)
        return around(made) if around else made


def check(
    name: str, shape: tuple[int, int, int], outputs: int, options: dict[str, Any], around: Around | None = None
) -> None:
    """Checks that the network accepts images of `shape` (channels, height, width), without computing anything.

    The user's own networks are not checked, since they may contain operations that need actual numbers.

    Raises:
        ValueError: it does not accept an option or the images.
    """
    if ":" in name:
        return
    try:
        with torch.device("meta"):
            model = build(name, shape[0], outputs, options, 0, around)
            images = torch.zeros(2, *shape)
    except NotImplementedError:  # a few networks cannot be built without actual numbers
        model, images = build(name, shape[0], outputs, options, 0, around), torch.zeros(2, *shape)
    check_outputs(model, name, images, None if around else outputs)


@torch.no_grad()
def check_outputs(model: nn.Module, name: str, images: Tensor, outputs: int | None) -> None:
    """Raises ValueError unless the network maps images [rows, …] to [rows, outputs]; None: to what its task knows."""
    mode = model.training
    size = " × ".join(map(str, images.shape[2:]))
    try:
        found = model.eval()(images)
    except Exception as error:  # layers raise errors of any type
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"{name} does not take images of {size} pixels with {images.shape[1]} channels"
        raise ValueError(f"{what}: {why}") from error
    model.train(mode)
    if outputs is None:
        return
    if not isinstance(found, Tensor) or found.shape != (len(images), outputs):
        shown = list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        allowed = f"[{len(images)}, {outputs}], a logit for each class"
        raise ValueError(f"{name} returns {shown} for {len(images)} images; allowed: {allowed}")
