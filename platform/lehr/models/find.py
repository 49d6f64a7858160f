"""Finds a network by name: built-in, torchvision's, timm's, or a class or function of the user's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

from lehr import trust
from lehr.extras import install
from lehr.job import not_a_choice
from lehr.job.text import nearest
from lehr.models.lite import SIDES, build_lite
from lehr.models.registry import MODELS, Model
from lehr.models.vision import torchvision, with_torchvision

SIZE_PARAMETERS = ("channels", "outputs")
"""Parameters of a network that lehr sets itself, so that a job may not."""


TIMM_LOADS = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
)
"""Parameters of `timm.create_model` itself, which load files and set global switches: no options of a network."""


TORCHVISION_SETS = (*SIZE_PARAMETERS, "weights", "pretrained", "progress", "num_classes")
"""Parameters of torchvision's networks that are set here, or that its weights decide."""


def find(name: str, options: Mapping[str, Any] | None = None) -> tuple[Model, Collection[str]]:
    """The callable behind a name, and those of its parameters that a job may not set.

    The user's own callables are given `channels` and `outputs` only if they have such parameters.

    Args:
        name: a built-in, torchvision or timm name, or `my_package.nets:Net`.
        options: what it will be called with, besides those sizes; see `lehr.trust`.

    Raises:
        ValueError: there is no such network; the sentence gives the nearest name.
        Untrusted: the name is code that nobody allowed.
    """
    if name in MODELS:
        return MODELS[name], SIZE_PARAMETERS
    if name.startswith("timm/"):
        return _timm(name.removeprefix("timm/")), (*SIZE_PARAMETERS, "num_classes", "in_chans", *TIMM_LOADS)
    if name in SIDES:
        return build_lite(name), (*SIZE_PARAMETERS, "in_channels", "num_classes")
    if calls := trust.named("model", name, options or {}):
        return _imported(calls[0]), SIZE_PARAMETERS
    models = torchvision().models
    published = models.list_models(module=models)
    if name in models.list_models(module=models.segmentation):
        return partial(_torchvision, name, weights_backbone=None), (*TORCHVISION_SETS, "weights_backbone")
    if name not in published:
        near = nearest(name, [*MODELS, *SIDES, *published])
        hint = f"; did you mean {near}?" if near else ";"
        others = "those of torchvision.models (resnet18, vit_b_16, …), timm/NAME or my_package.nets:Net"
        raise ValueError(f'"{name}" is not a model{hint} allowed: {", ".join(MODELS)}, {others}')
    return partial(_torchvision, name), TORCHVISION_SETS


def _torchvision(name: str, channels: int, outputs: int, **options: Any) -> nn.Module:
    """A torchvision classifier, or network of segmentation, with random weights, `outputs` classes and a first
    convolution for `channels`."""
    models = torchvision().models
    if name in ("googlenet", "inception_v3"):  # auxiliary heads would be returned beside the logits
        options = {"aux_logits": False, "init_weights": True, **options}
    try:
        model = models.get_model(name, weights=None, num_classes=outputs, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"torchvision cannot build it: {error}") from error
    if channels != 3:
        adapt_channels(model, channels)
    return model


def adapt_channels(model: nn.Module, channels: int) -> None:
    """Replaces the first convolution with one for this number of input channels, with new weights."""
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
    torchvision()  # which timm imports too
    try:
        import timm
    except ImportError:
        raise ValueError(f"timm/{name} needs the library timm; install it with: {install('timm')}") from None
    if not timm.is_model(name):
        alike = get_close_matches(name, timm.list_models(), n=5)  # there are more than a thousand
        raise ValueError(not_a_choice(f"timm/{name}", "model", [f"timm/{other}" for other in alike]))

    def build(channels: int, outputs: int, **options: Any) -> nn.Module:
        try:
            return timm.create_model(name, pretrained=False, num_classes=outputs, in_chans=channels, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"timm cannot build it: {error}") from error

    return build


def _imported(call: trust.Call) -> Model:
    """The user's own network."""
    try:
        found: Model = with_torchvision(lambda: trust.load(call))
    except ValueError as error:
        raise ValueError(f'"{call.path}" is not a model: {error}') from None
    if not callable(found):
        raise ValueError(f'"{call.path}" is not a model: it cannot be called; allowed: a class or a function')
    return found
