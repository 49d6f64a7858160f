"""Whether weights are those of a network, found out before any data are read or Ray is started."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from lehr.job.text import show
from lehr.models import build
from lehr.models.description import ModelDescription
from lehr.models.lite import MARK, SIDES, to_install
from lehr.models.registry import MODELS
from lehr.models.vision import torchvision
from lehr.models.weights import head_of, mismatch, read_weights, referenced_run
from lehr.runs import ModelFile

OUTPUTS = 1009
"""Of a network that is built to compare its shapes: no other layer has as many."""
BACKBONE = "backbone."
LOOK_SECONDS = 6.0  # of computing, for the network that weights are of, once they are refused


def check_weights(
    reference: str, storage: str, network: str, options: Mapping[str, Any], field: str = "model.weights"
) -> None:
    """Checks that there are such weights and that they are of this network, but for its head.

    Args:
        reference, storage, field: as `read_weights` takes them.
        network: its name.

    Raises:
        ValueError: there are none, they are damaged, or of another network; the sentence says of which, if it is known.
        RunError: there is no such run, or it has no finished model.
    """
    weights, _ = read_weights(reference, storage, network, field)
    if (model := _without_data(network, options)) is None:
        return  # a network that cannot be built is refused for that
    try:
        head = head_of(model, OUTPUTS)
    except ValueError:  # one of the user's own, whose outputs are no last layer
        return
    if not any(name.startswith(BACKBONE) for name in model.state_dict()):  # a detector's, around such a network
        inside = {name.removeprefix(BACKBONE): each for name, each in weights.items() if name.startswith(BACKBONE)}
        weights = inside or weights
    if why := mismatch(model.state_dict(), weights, head, any_channels=_takes_images(model)):
        section = field.rpartition(".")[0]
        whose = _of_run(reference, storage, section) if reference.startswith("run:") else _of_file(weights, section)
        raise ValueError(f"{reference} does not hold the weights of {network}: {why}; {whose}")


def _takes_images(model: nn.Module) -> str:
    """The name of the weights whose second dimension is the channels of an image."""
    return next((f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)), "")


def _without_data(
    network: str, options: Mapping[str, Any], devices: tuple[str, ...] = ("meta", "cpu")
) -> nn.Module | None:
    """The network with `OUTPUTS` outputs and, where it can be, without memory for its weights; None if that fails."""
    for device in devices:
        with suppress(Exception), torch.device(device):  # a network's own code raises errors of any type
            return build(network, 3, OUTPUTS, dict(options), seed=0)
    return None


# ── of which network they are ───────────────────────────────────────────────────────────────────────────────────────


def _of_run(reference: str, storage: str, section: str) -> str:
    """What to type for the network of a run."""
    described = ModelDescription.from_json(ModelFile.read(referenced_run(reference, storage)).description).network
    said = [shlex.quote(f"{section}.{key}={show(value)}") for key, value in described.options.items()]
    return f"that run is of another network; type {' '.join([f'{section}={described.name}', *said])}"


def _of_file(weights: Mapping[str, Tensor], section: str) -> str:
    """What to type for the network of a file, where it is one that is known by name."""
    until = time.process_time() + LOOK_SECONDS
    for name in _candidates(weights):
        model = _without_data(name, {}, ("meta",))
        with suppress(ValueError):
            if model and not mismatch(model.state_dict(), weights, head_of(model, OUTPUTS)):
                return f"they are those of {name}; type {section}={name}"
        if time.process_time() > until:
            break
    if MARK in weights and not any("._se_" in name for name in weights):
        name = next(iter(SIDES))
        return f"they seem to be those of an EfficientNet-Lite; type {to_install(name)}, then {section}={name}"
    return "name the network that they were saved from, or one of your own as my_package.nets:Net"


def _candidates(weights: Mapping[str, Tensor]) -> Iterator[str]:
    if MARK in weights:
        yield from SIDES
        return
    yield from MODELS
    names, first = (models := torchvision().models).list_models(module=models), next(iter(weights))
    for _, family in groupby(names, lambda name: re.match("[a-z]+", name)[0]):  # type: ignore[index]
        known = list(family)
        model = _without_data(known[0], {}, ("meta",))
        if model and first in model.state_dict():  # those of a family name their layers alike
            yield from known
