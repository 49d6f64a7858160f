"""Networks and data that are broken on purpose, one way each; named in jobs as `broken:NAME`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lehr.models.small_cnn import SmallCNN


class Sound(SmallCNN):
    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, width=8)


class LargeHead(Sound):
    """Last layer initialised 100 times too large."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs)
        with torch.no_grad():
            self.head.weight.mul_(100)


class CutOff(Sound):
    """A layer without gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)).detach())


class NotUsed(Sound):
    """A layer that the forward pass does not use."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs)
        self.extra = nn.Linear(32, 32)


class Dead(Sound):
    """ReLUs that are never positive."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs)
        with torch.no_grad():
            self.get_parameter("features.4.bias").fill_(-20)


class Unnormalised(Sound):
    """Inputs from 0 to 255."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 0.3 + 0.3) * 255)


class TwiceSoftmax(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class Sigmoid(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sigmoid()


class SevenClasses(Sound):
    """Wrong number of classes."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, 7)


class Frozen(Sound):
    """An optimizer with no parameters."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs)
        self.requires_grad_(False)


class InAList(nn.Module):
    """Layers in a plain list, which torch does not see."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = [nn.Conv2d(channels, 8, 3), nn.ReLU()]
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = layer(images)
        return self.head(images.mean((2, 3)))


class Blind(Sound):
    """Every image looks the same."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.ones_like(images))


class Infinite(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)) / 0)


class OneNumber(nn.Module):
    """Sees only the mean of an image, which is too little to tell images apart."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(1, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((1, 2, 3))[:, None])


class FourNumbers(nn.Module):
    """Sees only the means of four quarters: it learns something, but not enough."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(4, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(images.mean(1), 2).flatten(1))


class Noisy(nn.Module):
    """Shuffles the images within a batch, differently at every step: labels do not match inputs."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(64 * channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head((images[torch.randperm(len(images))] if self.training else images).flatten(1))
