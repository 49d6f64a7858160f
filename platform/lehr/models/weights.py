"""Initial weights: from an earlier run, published ones, or from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lehr.errors import RunError
from lehr.job import TrainJob
from lehr.models import pretrained
from lehr.models.description import ModelDescription
from lehr.models.recipes import Recipe, of_run, resolve
from lehr.runs import Folder, ModelFile, read_model
from lehr.tasks.feature_maps import Around
from lehr.tasks.find import find_task
from lehr.tasks.forms import PLACED, TASKS, LabelKind


def read_weights(
    reference: str, storage: str, name: str, field: str = "model.weights"
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights that `model.weights` refers to, and the classes they distinguish (empty if unknown).

    Args:
        reference: `run:NAME`, a run in the storage or at a path or URI; `pretrained`, `pretrained:NAME`; or a file.
        storage: the job's storage, where runs are looked up by name.
        name: the network.
        field: of the job that says so, for what to type where they cannot be had.

    Raises:
        ValueError: there are no such weights, they cannot be downloaded, or the file is damaged.
        RunError: there is no such run, or it has no finished model.
    """
    if reference.startswith("run:"):
        weights, about = read_model(referenced_run(reference, storage))
        return weights, ModelDescription.from_json(about).classes
    return pretrained.read_pretrained(reference, name, field)


def read_recipe(reference: str, storage: str, name: str) -> Recipe:
    """How images were prepared for these weights, as far as it is known. Reads no weights.

    Takes the same arguments as `read_weights` and raises the same errors, but for weights that are damaged.
    """
    if reference.startswith("run:"):
        described = ModelDescription.from_json(ModelFile.read(referenced_run(reference, storage)).description)
        return of_run(described.preprocess, reference)
    return pretrained.recipe(reference, name)


def recipe_for(job: TrainJob) -> Recipe:
    """How the images of a job are prepared: as for its weights, with what the job says instead.

    Raises:
        JobError: the job contradicts itself, or there are no such weights.
    """
    theirs = None
    if job.model.weights:
        try:
            theirs = read_recipe(job.model.weights, job.storage, job.model.name)
        except (ValueError, RunError) as error:
            raise job.error("model.weights", str(error)) from error
    size = job.data.image_size
    try:
        found = resolve(theirs, job.model.preprocessing, (size, size) if isinstance(size, int) else size)
        return found.letterboxed(job.model.preprocessing) if _labels(job) in PLACED else found
    except ValueError as error:
        raise job.error("model.preprocessing", str(error)) from None


def _labels(job: TrainJob) -> LabelKind:
    """What the job's task reads of each row; of one that is not there, which is told elsewhere, a class."""
    if job.task.name in TASKS:
        return TASKS[job.task.name].labels
    try:
        return find_task(job.task.name, job.task.options).labels
    except ValueError:
        return "class"


def referenced_run(reference: str, storage: str) -> Folder:
    """The run folder that `run:NAME` refers to: in the storage, or at a path or URI."""
    name = reference.removeprefix("run:")
    return Folder.at(name) if "://" in name or name.startswith("/") else Folder.at(storage).child(name)


def head_of(model: nn.Module, outputs: int) -> str:
    """The name of the head: the last layer with this number of outputs; of one around a backbone, all that is above it.

    Raises ValueError if there is none.
    """
    if named := getattr(model, "head_name", ""):
        return str(named)
    for name, layer in reversed(list(model.named_modules())):
        weight = getattr(layer, "weight", None)
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and isinstance(weight, Tensor) and len(weight) == outputs:
            return name
    raise ValueError(f"the network has no last layer with {outputs} outputs")


def deepen_head(model: nn.Module, outputs: int, hidden: int) -> None:
    """Replaces the linear head with one that has a hidden layer."""
    name = head_of(model, outputs)
    inputs = model.get_submodule(name).in_features
    assert isinstance(inputs, int)
    model.set_submodule(name, nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)))


@torch.no_grad()
def start_from(
    model: nn.Module, weights: dict[str, Tensor], classes: Sequence[str], their_classes: Sequence[str]
) -> bool:
    """Loads weights into `model`; the head keeps its own unless the classes are the same.

    Returns:
        Whether the head was loaded too.

    Raises:
        ValueError: names or shapes do not match those of the network.
    """
    if isinstance(model, Around) and not any(name.startswith("backbone.") for name in weights):
        # A classifier's: the network keeps its own head, and has left out the classifier's last layer.
        last = f"{model.dropped}."
        weights = {f"backbone.{name}": each for name, each in weights.items() if not name.startswith(last)}
        their_classes = ()
    same = list(classes) == list(their_classes)
    head = "" if same else head_of(model, len(classes))
    if why := mismatch(model.state_dict(), weights, head):
        raise ValueError(f"the weights do not fit this network: {why}")
    model.load_state_dict(_but(weights, head), strict=False)
    return same


def mismatch(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], head: str, any_channels: str = "") -> str:
    """What of weights does not fit a network; empty if all does.

    Args:
        own: the network's own tensors.
        head: the layer that is not compared; empty: all are.
        any_channels: a tensor whose second dimension is not compared.
    """
    own, taken = _but(own, head), _but(weights, head)
    for name, tensor in own.items():
        if name not in taken and name.endswith("num_batches_tracked"):
            continue  # older files lack this counter, which only matters for batch norm without a momentum
        if name not in taken:
            has = next((each for each in taken if each not in own), "")
            return f"{name} of the network is not in the weights{has and f', which have {has} instead'}"
        ours, theirs = list(tensor.shape), list(taken[name].shape)
        if ours != theirs and (name != any_channels or ours[:1] + ours[2:] != theirs[:1] + theirs[2:]):
            return f"{name} is {ours} in the network and {theirs} in the weights"
    extra = next((name for name in taken if name not in own), "")
    return extra and f"{extra} of the weights is not in the network"


def _but(tensors: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not layer or not name.startswith(f"{layer}.")}
