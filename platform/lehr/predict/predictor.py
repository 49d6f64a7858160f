"""A run's network, or all members of an ensemble, as one module from pixels to class probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lehr import models
from lehr.data.preprocess import Preprocess
from lehr.ensembles import By
from lehr.errors import RunError
from lehr.runs import Folder, read_model

ENSEMBLE_FORMAT = 1


class Network(nn.Module):
    """A trained network with its preprocessing, in evaluation mode: pixels in, logits out.

    Attributes:
        model: the network itself.
        classes: the class names, in the order of its outputs.
        preprocess: what it was trained with.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, classes: Sequence[str], preprocess: Preprocess, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.classes, self.preprocess, self.dtype = model, tuple(classes), preprocess, dtype
        scale = torch.tensor([1 / (255 * s) for s in preprocess.std], dtype=dtype)
        shift = torch.tensor([-m / s for m, s in zip(preprocess.mean, preprocess.std, strict=True)], dtype=dtype)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.eval()

    def inputs(self, pixels: Tensor) -> Tensor:
        """What the network takes, from pixels [rows, channels, height, width] from 0 to 255: as in training."""
        return torch.addcmul(self.shift, pixels.to(self.dtype), self.scale)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 logits [rows, classes]."""
        return self.model(self.inputs(pixels)).float()


class Predictor(nn.Module):
    """One network, or several with weights. All take the same images and know the same classes.

    Attributes:
        names: the members' names, in order; one for a plain run.
        classes: the class names, in the order of the outputs.
        size: (height, width) of the images in pixels.
        channels: 1 or 3.
        identity: changes when weights, members or their combination do.
    """

    shares: Tensor

    def __init__(
        self, networks: Sequence[Network], names: Sequence[str], weights: Sequence[float], by: By, identity: str = ""
    ) -> None:
        """Raises RunError where the members do not fit together."""
        super().__init__()
        first = networks[0]
        for network, name in zip(networks, names, strict=True):
            if network.classes != first.classes or _shape(network) != _shape(first):
                raise RunError(f"{name} knows other classes or takes other images than {names[0]}")
        self.networks = nn.ModuleList(networks)
        self.names, self.by, self.identity = tuple(names), by, identity
        self.classes = first.classes
        height, width, self.channels = _shape(first)
        self.size = (height, width)
        shares = torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("shares", (shares / shares.sum())[:, None, None], persistent=False)

    def logits(self, pixels: Tensor) -> Tensor:
        """float32 [members, rows, classes] from pixels [rows, channels, height, width] from 0 to 255.

        Members with the same preprocessing share its result.
        """
        inputs: dict[tuple[Preprocess, torch.dtype], Tensor] = {}
        outputs = []
        for network in self.networks:
            assert isinstance(network, Network)
            about = (network.preprocess, network.dtype)
            if about not in inputs:
                inputs[about] = network.inputs(pixels)
            outputs.append(network.model(inputs[about]).float())
        return torch.stack(outputs)

    def combine(self, logits: Tensor) -> Tensor:
        """float32 [rows, classes]: the members' logits [members, rows, classes] as probabilities of the whole.

        The formulas are those of `lehr.ensembles.combine`.
        """
        if self.by == "probabilities":
            return (logits.softmax(dim=2) * self.shares).sum(dim=0)
        return (logits * self.shares).sum(dim=0).softmax(dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 class probabilities [rows, classes] from pixels [rows, channels, height, width] from 0 to 255."""
        return self.combine(self.logits(pixels))


def load_network(folder: Folder) -> Network:
    """The model of a run folder, on the CPU. Raises RunError where there is none, or its file is damaged."""
    weights, description = read_model(folder)
    preprocess = Preprocess.from_description(description["preprocess"])
    spec, dtype, classes = description["model"], getattr(torch, description["dtype"]), description["classes"]
    try:
        model = models.build(spec["name"], preprocess.channels, len(classes), spec["options"], seed=0, trusted=False)
        if hidden := spec.get("hidden"):
            models.deepen_head(model, len(classes), hidden)
    except ValueError as error:
        raise RunError(f"{folder.uri}/model: {error}") from error
    model.to(dtype, memory_format=torch.channels_last).load_state_dict(weights)  # type: ignore[call-overload]
    return Network(model, description["classes"], preprocess, dtype)


def load_predictor(folder: Folder, unused: bool = False) -> Predictor:
    """What a run predicts with: its model, or the members of an ensemble that have a weight.

    Args:
        unused: load the members without weight as well.

    Raises:
        RunError: the run has no finished model, or one that is damaged.
    """
    if not folder.exists("ensemble.json"):
        network = load_network(folder)
        return Predictor([network], ["model"], [1.0], "probabilities", _fingerprint(folder))
    about = read_ensemble(folder)
    members = [member for member in about["members"] if unused or member["weight"] > 0]
    places = [folder.child(*member["run"].split("/")) for member in members]
    names = [member["run"].rpartition("/")[2] for member in members]
    identity = json.dumps([about["by"], [(m["weight"], _fingerprint(p)) for m, p in zip(members, places, strict=True)]])
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return Predictor([load_network(p) for p in places], names, [m["weight"] for m in members], about["by"], digest)


def read_ensemble(folder: Folder) -> dict[str, Any]:
    """`ensemble.json` of a run folder: `by`, `selection`, and `members` with `run` and `weight` each.

    Raises:
        RunError: it is missing, damaged or newer.
    """
    try:
        about = folder.read_json("ensemble.json")
    except FileNotFoundError as error:
        raise RunError(f"{folder.uri}: holds no finished ensemble: it has no ensemble.json") from error
    if not isinstance(about, dict) or not {"format", "by", "members"} <= about.keys():
        raise RunError(f"{folder.uri}/ensemble.json: is damaged: it does not describe an ensemble")
    if about["format"] != ENSEMBLE_FORMAT:
        text = f"has format {about['format']}, this lehr reads {ENSEMBLE_FORMAT}; update lehr"
        raise RunError(f"{folder.uri}/ensemble.json: {text}")
    return about


def write_ensemble(folder: Folder, by: By, selection: str, members: Sequence[tuple[str, float]]) -> None:
    """Writes `ensemble.json`: how the members, run folders inside this one, are combined.

    Args:
        members: (folder such as `members/02`, weight) of each.
    """
    found = [{"run": name, "weight": weight} for name, weight in members]
    about = {"format": ENSEMBLE_FORMAT, "by": by, "selection": selection, "members": found}
    folder.write_json("ensemble.json", about)


def _shape(network: Network) -> tuple[int, int, int]:
    about = network.preprocess
    return about.height, about.width, about.channels


def _fingerprint(folder: Folder) -> str:
    digest: str = folder.read_json("model/model.json")["weights"]["sha256"]
    return digest
