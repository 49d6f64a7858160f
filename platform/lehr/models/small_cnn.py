"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3 × 3 convolutions with normalisation, pooling after the last two, global average pooling, a linear head.

    Accepts images of at least 4 × 4 pixels.

    Args:
        channels: input channels.
        outputs: size of the head.
        width: channels of the first convolution; the later ones have twice and four times as many.
        norm: `batch` (Ioffe and Szegedy, 2015), `group` (Wu and He, 2018) or `none`.
        dropout: share of the features dropped before the head, from 0 to 1.
        init_scale: factor on the initial weights of the convolutions and the head. It is there to show the effect of a
            bad initialisation; only 1 keeps torch's own.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        width: int = 16,
        norm: str = "group",
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group", "none"):
            raise ValueError(f'norm: "{norm}" is not a normalisation; allowed: batch, group, none')
        if not init_scale > 0:
            raise ValueError(f"init_scale: {init_scale} is not a scale; allowed: a number above 0")
        if norm == "group" and width % 8:
            raise ValueError(f"width: {width} is not divisible into groups of 8 channels; allowed: multiples of 8")

        def block(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
            norms: dict[str, Callable[[int], nn.Module]] = {
                "batch": nn.BatchNorm2d,
                "group": lambda n: nn.GroupNorm(n // 8, n),
                "none": lambda n: nn.Identity(),
            }
            layers = [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm == "none"),
                norms[norm](outputs),
                nn.ReLU(inplace=True),
            ]
            return [*layers, nn.MaxPool2d(2)] if pool else layers

        self.features = nn.Sequential(
            *block(channels, width, False), *block(width, 2 * width, True), *block(2 * width, 4 * width, True)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, outputs)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    module.weight.mul_(init_scale)

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, height, width] → logits [rows, outputs]."""
        return self.head(self.dropout(self.features(images).mean(dim=(2, 3))))
