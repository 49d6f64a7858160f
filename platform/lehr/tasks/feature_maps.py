"""The feature maps of any convolutional backbone, found by a forward pass, and networks that are made around one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONVOLUTIONAL = "a convolutional network, such as small_cnn, resnet20, resnet18"


@dataclass(frozen=True)
class FeatureMap:
    """A feature map of a backbone.

    Attributes:
        layer: the name of the layer that gives it.
        stride: pixels of the input between two of its cells.
        channels: how many it has.
    """

    layer: str
    stride: int
    channels: int


class Around(nn.Module):
    """A network around a backbone: what is trained first when it is fine-tuned is its `head`.

    Attributes:
        backbone: the network that the job names.
        head: all that is above it.
        dropped: the name of the backbone's layer that is left out, which made classes of features; empty for none.
    """

    backbone: nn.Module
    head: nn.Module
    head_name = "head"
    dropped: str = ""


def feature_maps(backbone: nn.Module, images: Tensor) -> list[FeatureMap]:
    """Of each stride that is a power of two the last map that a layer gives, from the finest to the coarsest.

    Layers that are called more than once in a forward pass do not count: such a map would be that of another call.
    """
    found: list[FeatureMap] = []
    calls: Counter[str] = Counter()
    height, width = images.shape[2:]

    def look(layer: str, output: object) -> None:
        calls[layer] += 1
        if not isinstance(output, Tensor) or output.ndim != 4 or min(output.shape[2:]) < 2:
            return
        stride = 2 ** round(math.log2(max(1, height / output.shape[2])))
        sides = zip(output.shape[2:], (height, width), strict=True)
        if all(side in (whole // stride, -(-whole // stride)) for side, whole in sides):
            found.append(FeatureMap(layer, stride, output.shape[1]))

    with _hooked(backbone, dict(backbone.named_modules()), look):
        _run(backbone, images)
    last = {each.stride: each for each in found if calls[each.layer] == 1}
    return [last[stride] for stride in sorted(last)]


def without_classifier(backbone: nn.Module, images: Tensor, maps: Sequence[FeatureMap]) -> str:
    """Leaves out the last layer, which makes classes of features, and freezes what else no map depends on: a parameter
    that never gets a gradient cannot be averaged over workers. Returns the name of the layer; empty if it stays.

    Raises ValueError where the maps depend on little of the backbone.
    """
    used = _used(backbone, images, maps)
    layers = [layer for layer in backbone.modules() if isinstance(getattr(layer, "weight", None), nn.Parameter)]
    if 2 * sum(layer.weight in used for layer in layers) < len(layers):  # the patches of a transformer, say
        what = f"most of its layers come after {maps[-1].layer}, the last that gives a map of the image"
        raise ValueError(f"{what}; allowed: {CONVOLUTIONAL}")
    name = next((each for each, layer in reversed(list(backbone.named_modules())) if hasattr(layer, "weight")), "")
    dropped = ""
    if name and not any(parameter in used for parameter in backbone.get_submodule(name).parameters()):
        layer = backbone.get_submodule(name)
        backbone.set_submodule(name, nn.Identity())
        try:
            _run(backbone, images)
            dropped = name
        except Exception:  # what comes after it needs its shape
            backbone.set_submodule(name, layer)
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter in used)
    return dropped


def _used(backbone: nn.Module, images: Tensor, maps: Sequence[FeatureMap]) -> set[nn.Parameter]:
    """The parameters that the maps depend on."""
    mode = backbone.training
    with torch.enable_grad(), kept_maps(backbone, [each.layer for each in maps]) as kept:
        backbone.eval()(images.to(next(backbone.parameters()).dtype))
        parameters = [each for each in backbone.parameters() if each.requires_grad]
        total = sum((kept[each.layer].sum() for each in maps), torch.zeros((), device=images.device))
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    backbone.train(mode)
    return {each for each, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


@torch.no_grad()
def _run(backbone: nn.Module, images: Tensor) -> None:
    mode = backbone.training
    try:
        backbone.eval()(images.to(next(backbone.parameters()).dtype))
    finally:
        backbone.train(mode)


@contextmanager
def kept_maps(backbone: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What these layers give while the block lasts. Hooks of a forward pass alone: copies of a network need none."""
    kept: dict[str, Tensor] = {}

    def keep(layer: str, output: object) -> None:
        if isinstance(output, Tensor):
            kept[layer] = output

    with _hooked(backbone, {each: backbone.get_submodule(each) for each in layers}, keep):
        yield kept


@contextmanager
def _hooked(backbone: nn.Module, layers: dict[str, nn.Module], tell: object) -> Iterator[None]:
    assert callable(tell)

    def hook(name: str) -> object:
        return lambda layer, inputs, output: tell(name, output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def groups_of(width: int) -> int:
    """Groups that so many channels are normalised in: as many as fit, up to 32."""
    return next(count for count in (32, 16, 8, 4, 2, 1) if width % (2 * count) == 0 or count == 1)
