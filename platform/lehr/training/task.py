"""A job's task: found by name, checked against the rest of the job, and made for its training rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lehr.data.augment import MIXES, MOVES, PIXELS_ONLY
from lehr.data.dataset import DataSubset
from lehr.errors import JobError
from lehr.job import Training, TrainJob, check_call
from lehr.job.unused import said
from lehr.own_code import calling
from lehr.tasks.base import Learned, Task
from lehr.tasks.classification import class_weights
from lehr.tasks.find import find_task, is_own
from lehr.tasks.forms import LabelKind
from lehr.tasks.losses import Loss
from lehr.tasks.segmentation.measures import pixels_of_classes
from lehr.training.losses import make_losses


def task_of(job: Training, error: Callable[[str, str], JobError]) -> type[Task[Any]]:
    """The class of the job's task. Raises JobError where there is none."""
    try:
        return find_task(job.task.name, job.task.options)
    except ValueError as problem:
        raise error("task.name", str(problem)) from problem


def complete_task(job: Training, error: Callable[[str, str], JobError]) -> None:
    """Fills in the metric by which a user's own task chooses the best checkpoint, where the job names none."""
    if is_own(job.task.name) and "metric" not in job.train.model_fields_set:
        job.train.__dict__["metric"] = f"validation_{task_of(job, error).metric}"


def check_task(job: TrainJob) -> None:
    """Raises JobError where the task has no such option, or where the job asks for what the task cannot have."""
    complete_task(job, job.error)
    found = task_of(job, job.error)
    check_call(found.fit, job.task.options, skip=("learned",), field="task", error=job.error)
    if not found.losses:
        for name in (*said(job.loss, *type(job.loss).model_fields), *job.loss.options):
            why = f"with task: {job.task.name}, which has a loss of its own; leave the section loss out"
            raise job.error(f"loss.{name}", f"has no effect {why}")
    for number, each in enumerate(job.data.augment):
        if found.places and each.name not in (*MOVES, *PIXELS_ONLY):
            what = f"{each.name} does not say where it moves pixels, and the labels of {job.task.name} are places"
            raise job.error(f"data.augment.{number}", f"{what}; allowed: {', '.join((*MOVES, *sorted(PIXELS_ONLY)))}")
    mixing = [number for number, each in enumerate(job.data.augment) if each.name in MIXES]
    if mixing and not found.mixes:
        what = f"{job.data.augment[mixing[0]].name} mixes two images and their classes, and a row of {job.task.name}"
        raise job.error(f"data.augment.{mixing[0]}", f"{what} has no one class; remove it")


def make_task(job: TrainJob, rows: DataSubset, dtype: torch.dtype, mixed: bool = False) -> Task[Any]:
    """What the job learns from its training rows.

    Args:
        dtype: of the weights.
        mixed: whether augmentation mixes the images.

    Raises:
        JobError: class weights, a loss or an option of the task do not fit the rows.
        OwnCodeError: the user's own task failed.
    """
    found, names = task_of(job, job.error), rows.classes
    counted = found.labels == "class" and not is_own(job.task.name)  # of many millions of rows a list takes too much
    targets = rows.labels_at(torch.arange(0)) if counted else rows.labels
    weights, losses = None, (Loss(), Loss())
    if found.labels in ("class", "mask") and job.loss.class_weights != "none":
        try:
            weights = class_weights(job.loss.class_weights, _counts(job, found.labels, rows, targets), len(names))
        except ValueError as error:
            raise job.error("loss.class_weights", str(error)) from None
    if found.losses:
        losses = make_losses(job, found, weights, len(names), dtype, mixed)
    learned = Learned(names, targets, *losses)
    try:
        if not is_own(job.task.name):
            return found.fit(learned, **job.task.options)
        with calling(job.task.name, names=list(names), targets=targets, **job.task.options):
            return found.fit(learned, **job.task.options)
    except ValueError as error:
        option, _, what = str(error).partition(": ")
        known = option in job.task.options
        raise job.error(f"task.{option}" if known else "task", what if known else str(error)) from error


def _counts(job: TrainJob, labels: LabelKind, rows: DataSubset, targets: Any) -> torch.Tensor:
    """How many rows, or pixels of masks, each class has: what its weight goes by. Raises ValueError."""
    if labels == "class":
        return rows.class_counts()
    if targets.stride(0):
        return pixels_of_classes(targets, len(rows.classes))
    if job.loss.class_weights == "balanced":  # masks that are read with their images are not there yet
        what = "balanced counts the pixels of all masks, which are read during training"
        raise ValueError(f"{what}; allowed: a list with a weight for each class, or data.cache: memory")
    return torch.ones(len(rows.classes))
