"""The train jobs of a transfer: one per strategy, on the same data with the same budget."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from torch import Tensor

from lehr import models, trust
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder
from lehr.job import TrainJob, derive, to_dict
from lehr.job.transfer import Strategy, TransferJob
from lehr.models.description import ModelDescription
from lehr.models.fit import check_weights
from lehr.models.recipes import Recipe, resolve
from lehr.models.weights import read_recipe, referenced_run
from lehr.runs import Folder, ModelFile, list_runs


def check_backbone(job: TransferJob) -> None:
    """Raises JobError for a backbone that does not exist or whose weights are not available."""
    weights = job.backbone.weights
    if job.backbone.name.startswith("run:") and weights:
        what = f"{weights} cannot be combined with a run, which has its own; allowed: no weights"
        raise job.error("backbone.weights", what)
    try:
        network = backbone_network(job)
        backbone_recipe(job, network["name"])
        options = {key: value for key, value in network.items() if key != "name"}
        models.find(network["name"], options)
    except (ValueError, RunError) as error:
        raise job.error("backbone", str(error)) from error
    try:
        check_weights(backbone_weights(job), job.storage, network["name"], options, "backbone.weights")
    except (ValueError, RunError) as error:
        raise job.error("backbone.weights", str(error)) from error


def backbone_network(job: TransferJob) -> dict[str, Any]:
    """Name and options of the backbone's network, as a model section takes them.

    Raises:
        Untrusted: the backbone is a run whose network is code that nobody allowed.
    """
    name = job.backbone.name
    if not name.startswith("run:"):
        return {"name": name, **job.backbone.options}
    run = referenced_run(name, job.storage)
    if not run.exists("job.yaml") and (similar := _similar(run)):
        raise RunError(f'there is no run "{run.name}"; did you mean backbone=run:{similar}?')
    described = ModelDescription.from_json(ModelFile.read(run).description).network
    trust.check(described.calls, format_folder(run))
    options = {**described.options, **job.backbone.options}
    given = [*described.calls, *trust.calls_of(to_dict(job))]
    trust.allow_derived(given, trust.named("model", described.name, options))
    return {**options, "name": described.name}


def _similar(run: Folder) -> str:
    """The name of the run beside a missing one that is most like it; empty where none is."""
    try:
        known = [each.name for each in list_runs(run.uri.rpartition("/")[0]).runs]
    except LehrError:
        return ""
    return next(iter(get_close_matches(run.name, known, n=1)), "")


def backbone_weights(job: TransferJob) -> str:
    """Where the backbone's weights come from, as `model.weights` takes it."""
    if job.backbone.name.startswith("run:"):
        return job.backbone.name
    return job.backbone.weights or "pretrained"


def backbone_recipe(job: TransferJob, network: str) -> Recipe:
    """How images are prepared for the backbone: as for its weights, with what the job says instead.

    Args:
        network: the name of the backbone's network.

    Raises:
        JobError: the job contradicts itself.
        ValueError, RunError: there are no such weights.
    """
    theirs, given = read_recipe(backbone_weights(job), job.storage, network), job.backbone.preprocessing
    size = job.base.data.image_size
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is None and not (given and given.crop):
        wanted = theirs.size
    try:
        return resolve(theirs, given, wanted)
    except ValueError as error:
        what = str(error).replace("data.image_size", "base.data.image_size")
        raise job.error("backbone.preprocessing", what) from None


def strategy_job(job: TransferJob, strategy: Strategy, *, per_class: int | None = None, name: str = "") -> TrainJob:
    """The train job of a strategy. Images are prepared as in the pretraining, unless the job says otherwise.

    Args:
        per_class: train on this many images of each class only.
        name: the trial's folder in the run folder.
    """
    network = backbone_network(job)
    changes: dict[str, Any] = {}
    prepared = backbone_recipe(job, network["name"]).fields
    if strategy == "scratch":  # the same images, in the scale of these
        prepared = {key: value for key, value in prepared.items() if key not in ("mean", "std")}
        changes["model"] = {**network, "preprocessing": prepared}
    else:
        changes["model"] = {**network, "preprocessing": prepared, "weights": backbone_weights(job)}
        changes["finetune"] = {"head_first": "100%"} if strategy == "features" else to_dict(job.finetune)
    if per_class is not None:
        changes["data.per_class"] = per_class
    return derive(job.base, changes, parent=job, name=name or f"trials/{strategy}")


def reduced_sizes(job: TransferJob, labels: Tensor) -> list[int]:
    """The values of `images_per_class` that are below the size of the largest class, in ascending order."""
    largest = int(labels.bincount().max())
    return sorted({count for count in job.images_per_class if count < largest})
