"""Starting from weights: those of an earlier run, published ones, or a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lehr.models import pretrained
from lehr.runs import Folder, read_model


def read_weights(reference: str, storage: str, name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights that `model.weights` of the network `name` stands for, and the classes they tell apart.

    Args:
        reference: `run:NAME`, a run in the storage or at a path or URI; `pretrained`, `pretrained:NAME`; or a file.

    Raises:
        ValueError: there are no such weights, they cannot be downloaded, or the file is damaged.
        RunError: there is no such run, or it has no finished model.
    """
    if reference.startswith("run:"):
        weights, about = read_model(place_of(reference, storage))
        return weights, tuple(about["classes"])
    return pretrained.read_pretrained(reference, name)


def read_preprocessing(reference: str, storage: str, name: str) -> dict[str, Any] | None:
    """How images were prepared for these weights, as `Preprocess.from_description` takes it; None if nobody knows.

    Raises as `read_weights`, but downloads nothing.
    """
    if reference.startswith("run:"):
        return read_model(place_of(reference, storage))[1]["preprocess"]
    return pretrained.preprocessing(reference, name)


def place_of(reference: str, storage: str) -> Folder:
    """The folder of the run that `run:NAME` stands for: in the storage, or at a path or URI."""
    name = reference.removeprefix("run:")
    return Folder.at(name) if "://" in name or name.startswith("/") else Folder.at(storage).child(*name.split("/"))


def head_of(model: nn.Module, outputs: int) -> str:
    """The name of the last layer with so many outputs: the head. Raises ValueError when there is none."""
    for name, layer in reversed(list(model.named_modules())):
        weight = getattr(layer, "weight", None)
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and isinstance(weight, Tensor) and len(weight) == outputs:
            return name
    raise ValueError(f"the network has no last layer with {outputs} outputs")


def deepen_head(model: nn.Module, outputs: int, hidden: int) -> None:
    """Puts a head with one hidden layer in place of the linear one."""
    name = head_of(model, outputs)
    inputs = model.get_submodule(name).in_features
    assert isinstance(inputs, int)
    model.set_submodule(name, nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)))


@torch.no_grad()
def start_from(
    model: nn.Module, weights: dict[str, Tensor], classes: Sequence[str], their_classes: Sequence[str]
) -> bool:
    """Gives `model` the weights; the head keeps its own unless the classes are the same. Returns whether it was taken.

    Raises:
        ValueError: the weights are those of another network.
    """
    own = model.state_dict()
    same = list(classes) == list(their_classes)
    head = None if same else head_of(model, len(classes))
    taken = {name: value for name, value in weights.items() if head is None or not name.startswith(f"{head}.")}
    kept = set() if head is None else {name for name in own if name.startswith(f"{head}.")}
    for name in (name for name in own if name not in kept):
        if name not in taken and name.endswith("num_batches_tracked"):
            continue  # files from before torch counted them; it matters only without a momentum
        if name not in taken or taken[name].shape != own[name].shape:
            theirs = list(taken[name].shape) if name in taken else "nothing"
            raise ValueError(f"they are of another network: {name} is {list(own[name].shape)} here and {theirs} there")
    if extra := [name for name in taken if name not in own]:
        raise ValueError(f"they are of another network: there is no {extra[0]} here")
    model.load_state_dict(taken, strict=False)
    return same
