"""The network of detection: feature maps of any backbone, a pyramid of them, and one head for all levels of it.

FCOS: Tian et al., "FCOS: fully convolutional one-stage object detection", 2019, with the changes of their "FCOS: a
simple and strong anchor-free object detector", 2020 (centre-ness beside the sides, GIoU). The pyramid: Lin et al.,
"Feature pyramid networks for object detection", 2017.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WHERE = 3
"""Of the numbers of a location, the first ones: its x, y and stride, in pixels of the input."""
BEFORE_CLASSES = WHERE + 4 + 1
"""Where it is, its distances to the four sides of a box in strides, its centre-ness; then a logit of each class."""
CONVOLUTIONAL = "a convolutional network, such as small_cnn, resnet20, resnet18"
FINEST, MOST_LEVELS = 8, 5
PRIOR = 0.01
"""How probable each class is at each location before anything is learned: Lin et al., 2017, "Focal loss"."""


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


class Detector(nn.Module):
    """Images [rows, channels, height, width] → [rows, locations, 8 + classes], see `BEFORE_CLASSES`.

    Args:
        backbone: a classifier; its feature maps are used, and its last layer is left out.
        shape: (channels, height, width) of the images.
        classes: how many.
        width: channels of the pyramid and of the head.
        depth: convolutions of the head before the last.
        finest: stride of the finest level; by default 8, or that of the backbone's last map if that is finer.

    Raises:
        ValueError: the backbone has no feature maps that can be used.
    """

    def __init__(
        self,
        backbone: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        width: int = 64,
        depth: int = 2,
        finest: int | None = None,
    ) -> None:
        super().__init__()
        images = torch.zeros(2, *shape, device=next(backbone.parameters()).device)
        self.maps = _chosen(feature_maps(backbone, images), finest)
        self.backbone = backbone
        self.dropped = _without_classifier(backbone, images, self.maps)
        last, levels = self.maps[-1].stride, len(self.maps)
        extra = 0  # coarser levels, while four cells of them are as large as the image
        while levels + extra < MOST_LEVELS and 4 * last * 2 ** (extra + 1) <= min(shape[1:]):
            extra += 1
        self.head = Head([each.channels for each in self.maps], extra, classes, width, depth)
        self.strides = (*(each.stride for each in self.maps), *(last * 2 ** (k + 1) for k in range(extra)))

    def forward(self, images: Tensor) -> Tensor:
        with _kept(self.backbone, [each.layer for each in self.maps]) as kept:
            self.backbone(images)
        found = self.head([kept[each.layer] for each in self.maps])
        dtype = next(self.head.parameters()).dtype
        each = []
        for level, stride in zip(found, self.strides, strict=True):
            rows, _, height, width = level.shape
            where = locations(height, width, stride, level.device, dtype)
            numbers = level.to(dtype).flatten(2).transpose(1, 2)
            each.append(torch.cat([where.expand(rows, -1, -1), numbers], 2))
        return torch.cat(each, 1)


def locations(height: int, width: int, stride: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[height · width, 3]: x, y and stride of each cell of a level; a cell is its middle."""
    y = (torch.arange(height, device=device, dtype=dtype) + 0.5) * stride
    x = (torch.arange(width, device=device, dtype=dtype) + 0.5) * stride
    cells = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], 2).reshape(-1, 2)
    return torch.cat([cells, torch.full_like(cells[:, :1], stride)], 1)


class Head(nn.Module):
    """Feature maps → of each level [rows, 5 + classes, height, width]: distances, centre-ness, logits of the classes.

    Args:
        channels: of the maps, from the finest to the coarsest.
        extra: coarser levels, each made of the one before.
    """

    def __init__(self, channels: Sequence[int], extra: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(extra))
        self.box_tower = nn.Sequential(*(_block(width) for _ in range(depth)))
        self.class_tower = nn.Sequential(*(_block(width) for _ in range(depth)))
        self.scale = nn.Parameter(torch.ones(len(channels) + extra))  # of the distances, one for each level
        self.sides = nn.Conv2d(width, 4, 3, padding=1)
        self.centre = nn.Conv2d(width, 1, 3, padding=1)
        self.classes = nn.Conv2d(width, classes, 3, padding=1)
        for layer in (self.sides, self.centre, self.classes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for level, scale in zip(self._pyramid(maps), self.scale, strict=True):
            boxes, classes = self.box_tower(level), self.class_tower(level)
            sides = F.softplus(self.sides(boxes) * scale)  # never negative, and never without a gradient
            found.append(torch.cat([sides, self.centre(boxes), self.classes(classes)], 1))
        return found

    def _pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """All levels with the same channels, from the finest: each map with what the coarser ones know."""
        levels = [layer(each) for layer, each in zip(self.lateral, maps, strict=True)]
        for number in reversed(range(len(levels) - 1)):
            levels[number] = levels[number] + F.interpolate(levels[number + 1], size=levels[number].shape[2:])
        levels = [layer(each) for layer, each in zip(self.smooth, levels, strict=True)]
        for layer in self.coarser:
            levels.append(layer(levels[-1]))
        return levels


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(_groups(width), width), nn.ReLU(inplace=True)
    )


def _groups(width: int) -> int:
    return next(count for count in (32, 16, 8, 4, 2, 1) if width % (2 * count) == 0 or count == 1)


# ── the feature maps of any backbone ────────────────────────────────────────────────────────────────────────────────


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


def _chosen(maps: Sequence[FeatureMap], finest: int | None) -> list[FeatureMap]:
    """Those that the pyramid begins with. Raises ValueError where there are none."""
    known = ", ".join(str(each.stride) for each in maps)
    if not maps:
        what = "it gives no feature maps whose cells are 2, 4, 8, … pixels apart"
        raise ValueError(f"{what}; allowed: {CONVOLUTIONAL}")
    if finest is not None and finest not in [each.stride for each in maps]:
        raise ValueError(f"finest: its feature maps have the strides {known}, and none has {finest}; allowed: {known}")
    least = finest if finest is not None else min(FINEST, maps[-1].stride)
    return [each for each in maps if each.stride >= least]


def _without_classifier(backbone: nn.Module, images: Tensor, maps: Sequence[FeatureMap]) -> str:
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
    with torch.enable_grad(), _kept(backbone, [each.layer for each in maps]) as kept:
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
def _kept(backbone: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
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
