"""The network of segmentation: a U-Net on the feature maps of any convolutional backbone, or one of torchvision's.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015. Their figure 1,
from its lower end: the coarsest map is made finer (`up`), what the backbone gave at that stride is laid beside it
(`concatenate`), and two convolutions of 3 × 3 make one map of both; and so on up to the finest map. Unlike theirs,
maps keep their size (convolutions are padded), are made finer by interpolation, and are normalised by groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.tasks.feature_maps import CONVOLUTIONAL, Around, feature_maps, groups_of, kept_maps, without_classifier

LARGEST = 256
"""Channels of the decoder at most."""
AUXILIARY = 0.4
"""What the loss of torchvision's auxiliary head counts: Zhao et al., "Pyramid scene parsing network", 2017."""


class UNet(Around):
    """Images [rows, channels, height, width] → logits [rows, classes, height, width].

    Args:
        backbone: a classifier; its feature maps are used, and its last layer is left out.
        shape: (channels, height, width) of the images.
        classes: how many.
        width: channels of the decoder at its finest level; at each coarser one twice as many, up to `LARGEST`.

    Raises:
        ValueError: the backbone has no feature maps that can be used.
    """

    def __init__(self, backbone: nn.Module, shape: tuple[int, int, int], classes: int, *, width: int = 32) -> None:
        super().__init__()
        images = torch.zeros(2, *shape, device=next(backbone.parameters()).device)
        self.maps = feature_maps(backbone, images)
        if not self.maps:
            what = "it gives no feature maps whose cells are 2, 4, 8, … pixels apart"
            raise ValueError(f"{what}; allowed: {CONVOLUTIONAL}")
        self.backbone = backbone
        self.dropped = without_classifier(backbone, images, self.maps)
        self.head = Decoder([each.channels for each in self.maps], classes, width)

    def forward(self, images: Tensor) -> Tensor:
        with kept_maps(self.backbone, [each.layer for each in self.maps]) as kept:
            self.backbone(images)
        found = self.head([kept[each.layer] for each in self.maps])
        if found.shape[2:] == images.shape[2:]:
            return found
        return F.interpolate(found, size=images.shape[2:], mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Feature maps, from the finest to the coarsest → logits [rows, classes, height, width] of the finest."""

    def __init__(self, channels: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        wide = [min(LARGEST, width * 2**level) for level in range(len(channels))]
        self.bottom = double_convolution(channels[-1], wide[-1])
        self.steps = nn.ModuleList(
            double_convolution(wide[level + 1] + channels[level], wide[level])
            for level in reversed(range(len(channels) - 1))
        )
        self.classes = nn.Conv2d(wide[0], classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = self.bottom(maps[-1])
        for step, beside in zip(self.steps, reversed(maps[:-1]), strict=True):
            up = F.interpolate(found, size=beside.shape[2:], mode="nearest")
            found = step(torch.cat([up, beside], 1))
        return self.classes(found)


def double_convolution(channels: int, width: int) -> nn.Sequential:
    """Two convolutions of 3 × 3, each with its normalisation and ReLU."""
    layers: list[nn.Module] = []
    for before in (channels, width):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.GroupNorm(groups_of(width), width), nn.ReLU()]
    return nn.Sequential(*layers)


class Ready(nn.Module):
    """A network that has a logit for each pixel by itself: torchvision's, whose mapping has `out` and, while it is
    trained with `aux_loss`, `aux`; or a user's own, which returns a tensor.

    In evaluation it returns the logits alone, else also the auxiliary ones where there are some.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def head_name(self) -> str:
        """What is trained first when it is fine-tuned: torchvision calls it so."""
        return "model.classifier" if isinstance(getattr(self.model, "classifier", None), nn.Module) else ""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = self.model(images)
        if not isinstance(found, Mapping):
            return found
        if self.training and "aux" in found:
            return found["out"], found["aux"]
        return found["out"]


@torch.no_grad()
def segments(model: nn.Module, shape: tuple[int, int, int], classes: int) -> bool:
    """Whether a network has a logit of each class for each pixel by itself."""
    mode = model.training
    parameter = next(model.parameters(), torch.zeros(()))
    try:
        found = model.eval()(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    except Exception:  # layers raise errors of any type; it is tried again where that is told
        return False
    finally:
        model.train(mode)
    out = found.get("out") if isinstance(found, Mapping) else found
    return isinstance(out, Tensor) and tuple(out.shape) == (1, classes, *shape[1:])
