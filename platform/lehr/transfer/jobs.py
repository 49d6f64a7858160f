"""The train jobs that a transfer job is made of: one per strategy, on the same data with the same budget."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lehr.errors import RunError
from lehr.job import TrainJob, derive, to_dict
from lehr.job.transfer import Strategy, TransferJob
from lehr.models.weights import place_of, read_preprocessing
from lehr.runs import read_model


def check_backbone(job: TransferJob) -> None:
    """Raises JobError for a backbone that is not there or whose weights cannot be had."""
    weights = job.backbone.weights
    if job.backbone.name.startswith("run:") and weights:
        raise job.error("backbone.weights", f"{weights} beside a run, which brings its own; allowed: none")
    try:
        network(job)
        read_preprocessing(weights_of(job), job.storage, network(job)["name"])
    except (ValueError, RunError) as error:
        raise job.error("backbone", str(error)) from error


def network(job: TransferJob) -> dict[str, Any]:
    """Name and options of the backbone's network, as a model section takes them."""
    name = job.backbone.name
    if not name.startswith("run:"):
        return {"name": name, **job.backbone.options}
    described = read_model(place_of(name, job.storage))[1]["model"]
    return {"name": described["name"], **described["options"], **job.backbone.options}


def weights_of(job: TransferJob) -> str:
    """Where the backbone's weights come from, as `model.weights` takes it."""
    if job.backbone.name.startswith("run:"):
        return job.backbone.name
    return job.backbone.weights or "pretrained"


def job_of(job: TransferJob, strategy: Strategy, *, per_class: int | None = None, name: str = "") -> TrainJob:
    """The train job of a strategy. Images have the size of the pretraining unless the job says another.

    Args:
        per_class: train on only so many images of each class.
        name: the child's folder in the run folder.
    """
    model = network(job)
    changes: dict[str, Any] = {"model": model}
    if job.base.data.image_size is None:
        known = read_preprocessing(weights_of(job), job.storage, model["name"])
        if known:
            changes["data.image_size"] = [known["height"], known["width"]]
    if strategy != "scratch":
        changes["model"] = {**model, "weights": weights_of(job)}
        changes["finetune"] = {"head_first": "100%"} if strategy == "features" else to_dict(job.finetune)
    if per_class is not None:
        changes["data.per_class"] = per_class
    return derive(job.base, changes, parent=job, name=name or f"trials/{strategy}")


def sizes_of(job: TransferJob, labels: Tensor) -> list[int]:
    """The numbers of images per class that are fewer than there are, in order."""
    most = int(labels.bincount().max())
    return sorted({count for count in job.images_per_class if count < most})
