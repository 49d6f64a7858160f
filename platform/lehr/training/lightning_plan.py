"""Whether a job and the `LightningModule` that it names as its model fit, and what is known beforehand."""

from __future__ import annotations

import torch
from torch import nn

from lehr.durations import RunLength
from lehr.errors import TrainingError
from lehr.job import Training, TrainJob
from lehr.models.lightning import (
    Lightning,
    Misfit,
    Trainer,
    attach,
    base_of,
    check_class,
    defines,
    inspect_module,
)

OWN_METRICS = ("loss", "accuracy")


def check_lightning(job: TrainJob, found: object) -> None:
    """Raises JobError where a job names a LightningModule that does not fit, or says what its module decides.

    Args:
        found: what the job's model name stands for, or a module that it made.
    """
    kind = found if isinstance(found, type) else type(found)
    if not base_of(kind):
        return
    try:
        check_class(kind)
    except Misfit as error:
        raise job.error("model", str(error)) from None
    theirs = {"loss": "training_step computes the loss"}
    if defines(kind, "configure_optimizers"):
        what = "configure_optimizers makes the optimizer and its schedule"
        theirs |= {"optimizer": what, "schedule": what}
    for section, why in theirs.items():
        if _says(job, section):
            raise job.error(section, f"{kind.__name__}.{why}, so {section} has no effect; leave the section out")
    if job.finetune:
        raise job.error("finetune", f"{kind.__name__} is trained by its own steps; leave the section out")
    if job.train.compile:
        raise job.error("train.compile", f"{kind.__name__} is trained by its own steps; allowed: false")


def _says(job: TrainJob, section: str) -> bool:
    """Whether a job says anything in a section but its defaults; a job read from a run says all of them."""
    if getattr(job, section) != Training.model_fields[section].default:
        return True
    tree = job._origin.tree
    said = {key for key in Training.model_fields if tree and len(tree.trail((key,))) > 1}
    return section in said and len(said) < len(Training.model_fields)


def inspect_lightning(
    job: TrainJob, module: nn.Module, shape: tuple[int, int, int], outputs: int, length: RunLength, dtype: torch.dtype
) -> Lightning:
    """What is known of the module beforehand. Raises JobError where it does not fit."""
    check_lightning(job, module)
    attach(module, Trainer(length, rank=0, workers=1))
    try:
        found = inspect_module(module, shape, outputs, length, dtype)
        for name in {*found.logged, *found.logged_in_test} & set(OWN_METRICS):
            raise Misfit(f"{job.model.name} logs {name}, a name that lehr itself records; log it by another name")
    except (Misfit, TrainingError) as error:
        raise job.error("model", str(error)) from error
    return found
