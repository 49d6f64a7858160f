"""Networks from the literature for images of 32 × 32 pixels. They accept any size of at least 8 × 8."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CifarResNet(nn.Module):
    """A residual network of 6n + 2 layers: three stages of n blocks at full, half and quarter resolution.

    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2, with shortcuts of option
    A: at the start of a stage, every second pixel, and zeros for the new channels. 0.27 million weights at depth 20.

    Args:
        channels: input channels.
        outputs: size of the head.
        depth: layers: 20, 32, 44, 56, 110 in the paper.
        width: channels of the first stage; the later ones have twice and four times as many.
    """

    def __init__(self, channels: int, outputs: int, *, depth: int = 20, width: int = 16) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth: {depth} layers are not a residual network; allowed: 8, 14, 20, … (6n + 2)")
        if width < 1:
            raise ValueError(f"width: {width} is not a number of channels; allowed: 1 or more")
        self.stem = nn.Sequential(_conv(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        blocks, inputs = [], width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                blocks.append(_Block(inputs, width << stage, 2 if stage and not block else 1))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, outputs)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, height, width] → logits [rows, outputs]."""
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))


class _Block(nn.Module):
    """Two 3 × 3 convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.new_channels = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            before = self.new_channels // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        return F.relu(inner + shortcut)


class WideResNet(nn.Module):
    """A residual network of 6n + 4 layers with `width` times the channels, normalised before each convolution.

    Zagoruyko and Komodakis, "Wide residual networks", 2016. 36.5 million weights at depth 28 and width 10.

    Args:
        channels: input channels.
        outputs: size of the head.
        depth: layers: 16, 22, 28, 40 in the paper.
        width: factor on the 16, 32 and 64 channels of the three stages.
        dropout: share dropped between the two convolutions of a block.
    """

    def __init__(self, channels: int, outputs: int, *, depth: int = 16, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth: {depth} layers are not a wide residual network; allowed: 10, 16, 22, … (6n + 4)")
        if width < 1:
            raise ValueError(f"width: {width} is not a width factor; allowed: 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout} is not a share; allowed: from 0 to below 1")
        self.stem = _conv(channels, 16)
        blocks, inputs = [], 16
        for stage in range(3):
            for block in range((depth - 4) // 6):
                outputs_of_stage = 16 * width << stage
                blocks.append(_WideBlock(inputs, outputs_of_stage, 2 if stage and not block else 1, dropout))
                inputs = outputs_of_stage
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, outputs)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, height, width] → logits [rows, outputs]."""
        return self.head(F.relu(self.norm(self.blocks(self.stem(images)))).mean(dim=(2, 3)))


class _WideBlock(nn.Module):
    """Norm, convolution, norm, dropout, convolution; a 1 × 1 convolution on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        inner = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(active)))))
        return inner + (x if self.shortcut is None else self.shortcut(active))


class ResNet9(nn.Module):
    """A short, wide residual network that learns fast: four convolutions, two of them followed by a block of two more.

    Page, "How to train your ResNet", 2018, which reached 94 % on CIFAR-10 in 24 epochs with batches of 512. 6.6
    million weights at width 64.

    Args:
        channels: input channels.
        outputs: size of the head.
        width: channels of the first convolution; the later ones have 2, 4 and 8 times as many.
        head_scale: factor on the logits, which keeps the first steps stable at a high learning rate.
    """

    def __init__(self, channels: int, outputs: int, *, width: int = 64, head_scale: float = 0.125) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: {width} is not a number of channels; allowed: 1 or more")
        self.stem = _normed(channels, width)
        self.stage1 = nn.Sequential(_normed(width, 2 * width), nn.MaxPool2d(2))
        self.block1 = nn.Sequential(*(_normed(2 * width, 2 * width) for _ in range(2)))
        self.stage2 = nn.Sequential(_normed(2 * width, 4 * width), nn.MaxPool2d(2))
        self.stage3 = nn.Sequential(_normed(4 * width, 8 * width), nn.MaxPool2d(2))
        self.block3 = nn.Sequential(*(_normed(8 * width, 8 * width) for _ in range(2)))
        self.head = nn.Linear(8 * width, outputs, bias=False)
        self.head_scale = head_scale

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, height, width] → logits [rows, outputs]."""
        x = self.stage1(self.stem(images))
        x = self.stage3(self.stage2(x + self.block1(x)))
        return self.head((x + self.block3(x)).amax(dim=(2, 3))) * self.head_scale


def _normed(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


@torch.no_grad()
def _initialise(model: nn.Module) -> None:
    """He et al., "Delving deep into rectifiers", 2015."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
