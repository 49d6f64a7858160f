"""A run's model as one module from pixels to class probabilities: its network, or all members of an ensemble."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lehr import models, trust
from lehr.data.preprocess import Preprocess
from lehr.ensembles import CombineBy
from lehr.errors import RunError
from lehr.formatting import format_folder
from lehr.models.description import ModelDescription
from lehr.predict.ensemble_description import EnsembleDescription
from lehr.runs import Folder, ModelFile, read_model
from lehr.tasks.base import Task
from lehr.tasks.classification import Classification
from lehr.tasks.find import restore
from lehr.tasks.losses import logits


class Network(nn.Module):
    """A trained network with its preprocessing, in evaluation mode: pixels in, logits out.

    Attributes:
        model: the network without preprocessing.
        classes: the class names, in the order of its outputs.
        preprocess: the preprocessing that it was trained with.
        task: what it was trained for, which says what its outputs mean.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        preprocess: Preprocess,
        dtype: torch.dtype,
        task: Task[Any] | None = None,
    ) -> None:
        super().__init__()
        self.task = task or Classification(tuple(classes))
        self.model, self.classes, self.preprocess, self.dtype = model, tuple(classes), preprocess, dtype
        scale = torch.tensor([1 / (255 * s) for s in preprocess.std], dtype=dtype)
        shift = torch.tensor([-m / s for m, s in zip(preprocess.mean, preprocess.std, strict=True)], dtype=dtype)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.eval()

    def inputs(self, pixels: Tensor) -> Tensor:
        """The network's inputs, as in training, from pixels [rows, channels, height, width] from 0 to 255."""
        return torch.addcmul(self.shift, pixels.to(self.dtype), self.scale)

    def logits(self, inputs: Tensor) -> Tensor:
        """From its own inputs: float32 logits [rows, classes], whose softmax is the probabilities of the classes; of
        other tasks what the outputs mean, such as numbers in their own unit [rows, numbers]."""
        outputs = self.model(inputs).float()
        one_class = isinstance(self.task, Classification)
        return logits(outputs, self.task.activation) if one_class else self.task.values(outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 logits [rows, classes]."""
        return self.logits(self.inputs(pixels))


class Predictor(nn.Module):
    """One network, or several with weights. All take the same images, have the same task and know the same classes.

    Attributes:
        names: the members' names, in order; one name for a run that is not an ensemble.
        by: what is averaged over members: `probabilities` or `logits`.
        classes: the names of the classes, or of the numbers, in the order of the outputs.
        task: what it predicts.
        wanted: what its images are decoded to.
        size: (height, width) of the images in pixels.
        channels: 1, 3 or 4.
        fingerprint: changes whenever the weights, the members or their combination change.
    """

    member_weights: Tensor

    def __init__(
        self,
        networks: Sequence[Network],
        names: Sequence[str],
        weights: Sequence[float],
        by: CombineBy,
        fingerprint: str = "",
    ) -> None:
        """Raises RunError if the members do not fit together."""
        super().__init__()
        first = networks[0]
        for network, name in zip(networks, names, strict=True):
            if type(network.task) is not type(first.task):
                raise RunError(f"{name} was trained for another task than {names[0]}")
            if network.classes != first.classes or network.preprocess.wanted != first.preprocess.wanted:
                what = "has other classes or takes images of another shape than"
                if network.classes == first.classes and network.preprocess.shape == first.preprocess.shape:
                    what = "had its images prepared otherwise (data.pixel_range, data.decode, model.preprocessing) than"
                raise RunError(f"{name} {what} {names[0]}")
        self.networks = nn.ModuleList(networks)
        self.names, self.by, self.fingerprint = tuple(names), by, fingerprint
        self.classes, self.task = first.classes, first.task
        self.wanted = first.preprocess.wanted
        self.channels, height, width = first.preprocess.shape
        self.size = (height, width)
        shares = torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("member_weights", (shares / shares.sum())[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that the predictor computes on."""
        return self.member_weights.device

    def logits(self, pixels: Tensor) -> Tensor:
        """float32 [members, rows, classes] from pixels [rows, channels, height, width] from 0 to 255.

        Members with the same preprocessing share the preprocessed images.
        """
        inputs: dict[tuple[Preprocess, torch.dtype], Tensor] = {}
        outputs = []
        for network in self.networks:
            assert isinstance(network, Network)
            preparation = (network.preprocess, network.dtype)
            if preparation not in inputs:
                inputs[preparation] = network.inputs(pixels)
            outputs.append(network.logits(inputs[preparation]))
        return torch.stack(outputs)

    def combine(self, logits: Tensor) -> Tensor:
        """The combined class probabilities, float32 [rows, classes], from the members' logits [members, rows, classes].

        The formulas are those of `lehr.ensembles.combine`. Of other tasks it is the weighted mean of what they predict.
        """
        if not isinstance(self.task, Classification):
            return self.task.average(logits, self.member_weights.flatten())
        if self.by == "probabilities":
            return (logits.softmax(dim=2) * self.member_weights).sum(dim=0)
        return (logits * self.member_weights).sum(dim=0).softmax(dim=1)

    def alone(self, logits: Tensor) -> Tensor:
        """What each member says by itself, [members, rows, classes], from the members' logits."""
        return logits.softmax(dim=2) if isinstance(self.task, Classification) else logits

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 class probabilities [rows, classes] from pixels [rows, channels, height, width] from 0 to 255; of
        other tasks what they predict, such as numbers in their own unit."""
        return self.combine(self.logits(pixels))


def load_network(folder: Folder, of: Folder | None = None) -> Network:
    """The model of a run folder, on the CPU.

    Args:
        of: the run that this one is a member of.

    Raises:
        RunError: there is no model, or its file is damaged.
        Untrusted: its network is code that nobody allowed.
    """
    weights, content = read_model(folder)
    description = ModelDescription.from_json(content)
    trust.check(description.calls, format_folder(of or folder))
    preprocess = Preprocess.from_description(description.preprocess)
    spec, dtype, classes = description.network, getattr(torch, description.dtype), description.classes
    try:
        options = dict(spec.options)
        about = description.task_options, classes, description.learned, description.activation
        task = restore(description.task, *about)
        around = partial(task.network, shape=preprocess.shape) if task.wraps else None
        model = models.build(spec.name, preprocess.channels, task.outputs, options, 0, around)
        if spec.hidden:
            models.deepen_head(model, task.outputs, spec.hidden)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder.uri}/model: {error}") from error
    model.to(dtype, memory_format=torch.channels_last).load_state_dict(weights)  # type: ignore[call-overload]
    return Network(model, classes, preprocess, dtype, task)


def load_predictor(folder: Folder, *, all_members: bool = False) -> Predictor:
    """The predictor of a run: its network, or the members of an ensemble.

    Args:
        all_members: also load the members of an ensemble whose weight is zero.

    Raises:
        RunError: the run has no finished model, or it is damaged.
    """
    if not EnsembleDescription.exists(folder):
        return Predictor([load_network(folder)], ["model"], [1.0], "probabilities", _weights_digest(folder))
    ensemble = EnsembleDescription.read(folder)
    members = [member for member in ensemble.members if all_members or member.weight > 0]
    folders = [folder.child(member.run) for member in members]
    networks, weights = [load_network(each, folder) for each in folders], [member.weight for member in members]
    digests = [_weights_digest(each) for each in folders]
    chosen = [dict(ensemble.learned)] if ensemble.learned else []
    identity = json.dumps([ensemble.by, list(zip(weights, digests, strict=True)), *chosen])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    predictor = Predictor(networks, [member.name for member in members], weights, ensemble.by, fingerprint)
    if ensemble.learned:
        try:
            predictor.task = predictor.task.with_choices(ensemble.learned)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder.uri}/ensemble.json: damaged: it does not describe an ensemble") from error
    return predictor


def _weights_digest(folder: Folder) -> str:
    return ModelFile.read(folder).weights.sha256
