"""Networks of the cases that lehr does not bring: a perceptron, a deep plain one, and a small transformer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tests.benchmarks.practice.data_sets import SIDE


class Perceptron(nn.Sequential):
    """Fully connected layers with ReLU."""

    def __init__(self, channels: int, outputs: int, *, width: int = 96, frozen: bool = False) -> None:
        body = [nn.Flatten(), nn.Linear(channels * SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        super().__init__(*body, nn.Linear(width, outputs))
        _freeze([*self][:-1], frozen)


class Plain(nn.Sequential):
    """Six convolutions without normalisation, initialised as He et al., 2015, say, times `scale`."""

    def __init__(
        self, channels: int, outputs: int, *, width: int = 16, scale: float = 1.0, frozen: bool = False, norm: float = 0
    ) -> None:
        layers: list[nn.Module] = []
        for number in range(6):
            inputs = channels if number == 0 else width
            layers += [nn.Conv2d(inputs, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width, momentum=norm)] if norm else []
            layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if number in (1, 3) else [])]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                layer.weight.data *= scale
        _freeze([*self][:-1], frozen)


class Detached(Plain):
    """The same, with a body that no gradient reaches though all its weights ask for one."""

    def forward(self, input: Tensor) -> Tensor:
        """[rows, channels, SIDE, SIDE] → logits [rows, outputs]."""
        *body, head = self
        for layer in body:
            input = layer(input)
        logits: Tensor = head(input.detach())
        return logits


class Transformer(nn.Module):
    """A vision transformer of two blocks on patches of 4 × 4 pixels (Dosovitskiy et al., 2021)."""

    def __init__(self, channels: int, outputs: int, *, width: int = 48, frozen: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 4, 4)
        self.place = nn.Parameter(torch.zeros(1, (SIDE // 4) ** 2, width))
        nn.init.normal_(self.place, std=0.02)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)
        _freeze([self.patches, self.blocks], frozen)

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, SIDE, SIDE] → logits [rows, outputs]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.place
        logits: Tensor = self.head(self.blocks(tokens).mean(dim=1))
        return logits


def _freeze(parts: Iterable[nn.Module], frozen: bool) -> None:
    for part in parts if frozen else ():
        part.requires_grad_(False)
