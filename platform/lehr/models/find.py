"""A network by name: ours, torchvision's, timm's, or a class or function of the user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Collection
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lehr.job import not_a_choice
from lehr.job.text import nearest
from lehr.models.cifar import CifarResNet, ResNet9, WideResNet
from lehr.models.small_cnn import SmallCNN
from lehr.models.vision import torchvision

Model = Callable[..., nn.Module]

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
"""Ours. Each is a callable (channels, outputs, **options)."""

OURS = ("channels", "outputs")
"""What lehr fills in itself; a job may not say it."""


def find(name: str, *, trusted: bool = True) -> tuple[Model, Collection[str]]:
    """The callable behind a name, and the parameters of it that a job may not say.

    Called with `channels`, `outputs` and options, it returns a network that maps images [rows, channels, height, width]
    to [rows, outputs]. Those of the user's own get `channels` and `outputs` if they name them.

    Args:
        trusted: the name comes from the user, and not from a file that somebody else may have written.

    Raises:
        ValueError: there is no such network; the sentence names the nearest.
    """
    if name in MODELS:
        return MODELS[name], OURS
    if name.startswith("timm/"):
        return _timm(name.removeprefix("timm/")), (*OURS, "num_classes", "in_chans", "pretrained")
    if ":" in name:
        return _own(name, trusted), OURS
    models = torchvision().models
    theirs = models.list_models(module=models)
    if name not in theirs:
        near = nearest(name, [*MODELS, *theirs])
        hint = f"; did you mean {near}?" if near else ";"
        ours = ", ".join(MODELS)
        others = "those of torchvision.models (resnet18, vit_b_16, …), timm/NAME or my_package.nets:Net"
        raise ValueError(f'"{name}" is not a model{hint} allowed: {ours}, {others}')
    return partial(_torchvision, name), (*OURS, "weights", "progress", "num_classes")


def _torchvision(name: str, channels: int, outputs: int, **options: Any) -> nn.Module:
    """A classifier of torchvision with random weights, a head of this size and a first convolution for the channels."""
    models = torchvision().models
    if name in ("googlenet", "inception_v3"):  # their other heads would come out as well, beside the logits
        options = {"aux_logits": False, "init_weights": True, **options}
    try:
        model = models.get_model(name, weights=None, num_classes=outputs, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"torchvision refuses it: {error}") from error
    if channels != 3:
        adapt_channels(model, channels)
    return model


def adapt_channels(model: nn.Module, channels: int) -> None:
    """Puts a convolution for so many input channels, with new weights, in place of the first one."""
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            new = nn.Conv2d(
                channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                layer.dilation,  # type: ignore[arg-type]
                bias=layer.bias is not None,
                padding_mode=layer.padding_mode,
            )
            model.set_submodule(path, new)
            return


def _timm(name: str) -> Model:
    torchvision()  # timm imports it too
    try:
        import timm
    except ImportError:
        raise ValueError(f"timm/{name} needs the library timm; install it with: pip install 'lehr[timm]'") from None
    if not timm.is_model(name):
        alike = get_close_matches(name, timm.list_models(), n=5)  # of more than a thousand
        raise ValueError(not_a_choice(f"timm/{name}", "model", [f"timm/{other}" for other in alike]))

    def build(channels: int, outputs: int, **options: Any) -> nn.Module:
        try:
            return timm.create_model(name, pretrained=False, num_classes=outputs, in_chans=channels, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"timm refuses it: {error}") from error

    return build


def _own(path: str, trusted: bool) -> Model:
    module_name, _, attribute = path.partition(":")
    if not trusted and module_name.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f'"{path}" is not a model, and is not called')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and what it imports is not
        what = f'"{path}" is not a model: there is no module {error.name}'
        raise ValueError(f"{what}; allowed: my_package.nets:Net, found beside the job file or installed") from None
    found = getattr(module, attribute, None)
    if not callable(found):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        networks = [name for name in classes if issubclass(vars(module)[name], nn.Module)] or ["none"]
        raise ValueError(not_a_choice(attribute, f"model in {module_name}", networks))
    if not trusted and not _is_network(found):
        raise ValueError(
            f'"{path}" is not called, since the run folder may be of somebody else; allowed: a subclass of '
            "torch.nn.Module, or a function of your own outside installed packages"
        )
    return found


def _is_network(found: Any) -> bool:
    """Whether to call this can only make a network: `torch.hub.load`, say, would run any code it is pointed to."""
    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    file = inspect.isfunction(found) and inspect.getsourcefile(found)
    return bool(file) and not {"site-packages", "dist-packages"} & set(Path(str(file)).parts)
