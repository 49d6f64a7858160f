"""A run's model as one module from pixels to class probabilities: its network, or all members of an ensemble."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

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
from lehr.tasks.losses import Activation, logits


class Network(nn.Module):
    """A trained network with its preprocessing, in evaluation mode: pixels in, logits out.

    Attributes:
        model: the network without preprocessing.
        classes: the class names, in the order of its outputs.
        preprocess: the preprocessing that it was trained with.
        activation: what turns the outputs of `model` into probabilities.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        preprocess: Preprocess,
        dtype: torch.dtype,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        self.activation = activation
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
        """float32 logits [rows, classes], whose softmax is the probabilities of the classes, from its own inputs."""
        return logits(self.model(inputs).float(), self.activation)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 logits [rows, classes]."""
        return self.logits(self.inputs(pixels))


class Predictor(nn.Module):
    """One network, or several with weights. All take the same images and know the same classes.

    Attributes:
        names: the members' names, in order; one name for a run that is not an ensemble.
        by: what is averaged over members: `probabilities` or `logits`.
        classes: the class names, in the order of the outputs.
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
            if network.classes != first.classes or network.preprocess.wanted != first.preprocess.wanted:
                what = "has other classes or takes images of another shape than"
                if network.classes == first.classes and network.preprocess.shape == first.preprocess.shape:
                    what = "had its images prepared otherwise (data.pixel_range, model.preprocessing) than"
                raise RunError(f"{name} {what} {names[0]}")
        self.networks = nn.ModuleList(networks)
        self.names, self.by, self.fingerprint = tuple(names), by, fingerprint
        self.classes = first.classes
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

        The formulas are those of `lehr.ensembles.combine`.
        """
        if self.by == "probabilities":
            return (logits.softmax(dim=2) * self.member_weights).sum(dim=0)
        return (logits * self.member_weights).sum(dim=0).softmax(dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 class probabilities [rows, classes] from pixels [rows, channels, height, width] from 0 to 255."""
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
    trust.check(description.network.calls, format_folder(of or folder))
    preprocess = Preprocess.from_description(description.preprocess)
    spec, dtype, classes = description.network, getattr(torch, description.dtype), description.classes
    try:
        options = dict(spec.options)
        model = models.build(spec.name, preprocess.channels, len(classes), options, seed=0)
        if spec.hidden:
            models.deepen_head(model, len(classes), spec.hidden)
    except ValueError as error:
        raise RunError(f"{folder.uri}/model: {error}") from error
    model.to(dtype, memory_format=torch.channels_last).load_state_dict(weights)  # type: ignore[call-overload]
    return Network(model, classes, preprocess, dtype, description.activation)


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
    identity = json.dumps([ensemble.by, list(zip(weights, digests, strict=True))])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    return Predictor(networks, [member.name for member in members], weights, ensemble.by, fingerprint)


def _weights_digest(folder: Folder) -> str:
    return ModelFile.read(folder).weights.sha256
