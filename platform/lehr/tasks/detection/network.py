"""The network of detection: feature maps of any backbone, a pyramid of them, and one head for all levels of it.

FCOS: Tian et al., "FCOS: fully convolutional one-stage object detection", 2019, with the changes of their "FCOS: a
simple and strong anchor-free object detector", 2020 (centre-ness beside the sides, GIoU). The pyramid: Lin et al.,
"Feature pyramid networks for object detection", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.tasks.feature_maps import (
    CONVOLUTIONAL,
    Around,
    FeatureMap,
    feature_maps,
    groups_of,
    kept_maps,
    without_classifier,
)

WHERE = 3
"""Of the numbers of a location, the first ones: its x, y and stride, in pixels of the input."""
BEFORE_CLASSES = WHERE + 4 + 1
"""Where it is, its distances to the four sides of a box in strides, its centre-ness; then a logit of each class."""
FINEST, MOST_LEVELS = 8, 5
PRIOR = 0.01
"""How probable each class is at each location before anything is learned: Lin et al., 2017, "Focal loss"."""


class Detector(Around):
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
        self.dropped = without_classifier(backbone, images, self.maps)
        last, levels = self.maps[-1].stride, len(self.maps)
        extra = 0  # coarser levels, while four cells of them are as large as the image
        while levels + extra < MOST_LEVELS and 4 * last * 2 ** (extra + 1) <= min(shape[1:]):
            extra += 1
        self.head = Head([each.channels for each in self.maps], extra, classes, width, depth)
        self.strides = (*(each.stride for each in self.maps), *(last * 2 ** (k + 1) for k in range(extra)))

    def forward(self, images: Tensor) -> Tensor:
        with kept_maps(self.backbone, [each.layer for each in self.maps]) as kept:
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
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups_of(width), width), nn.ReLU(inplace=True)
    )


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
