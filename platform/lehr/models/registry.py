"""The networks that come with lehr. To add one: a module beside this one, and its line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from lehr.models.cifar import CifarResNet, ResNet9, WideResNet
from lehr.models.small_cnn import SmallCNN

Model = Callable[..., nn.Module]
"""Called with `channels`, `outputs` and the options of the job, it returns a network that maps images
[rows, channels, height, width] to [rows, outputs]."""

MODELS: dict[str, Model] = {
    "small_cnn": SmallCNN,
    "cifar_resnet": CifarResNet,
    **{f"resnet{depth}": partial(CifarResNet, depth=depth) for depth in (20, 32, 44, 56, 110)},
    "resnet9": ResNet9,
    "wide_resnet": WideResNet,
    **{
        f"wrn_{depth}_{width}": partial(WideResNet, depth=depth, width=width)
        for depth, width in ((16, 4), (16, 8), (22, 8), (28, 10), (40, 2), (40, 4))
    },
}
