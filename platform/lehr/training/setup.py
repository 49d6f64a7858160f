"""Everything a job needs before its first step, built and checked in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lehr import models
from lehr.data.augment import Augment
from lehr.data.dataset import Epochs, Splits
from lehr.data.load import augmentations
from lehr.data.preprocess import Preprocess
from lehr.durations import Clock
from lehr.job import TrainJob, check_call
from lehr.tasks import Classification, Task
from lehr.tasks.classification import class_weights
from lehr.training.optimizers import check_optimizer

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.float32, "fp16": torch.float32}


def check_job(job: TrainJob) -> None:
    """Checks what needs the code of models, optimizers and augmentations but no data. Raises JobError."""
    check_optimizer(job)
    augmentations(job)
    if job.model.name not in models.MODELS:
        raise job.error("model.name", f'"{job.model.name}" is not a model; allowed: {", ".join(models.MODELS)}')
    check_call(
        models.MODELS[job.model.name], job.model.options, skip=("channels", "outputs"), field="model", error=job.error
    )


@dataclass(frozen=True)
class Plan:
    """A job and its data, resolved: the steps of the run, their rate, the task, and how pixels are prepared.

    A pure function of the job and the data, so every worker and every resumed attempt comes to the same one.
    """

    job: TrainJob
    splits: Splits
    epochs: Epochs
    clock: Clock
    rate: Callable[[int], float]
    checkpoint_every: int
    task: Task
    preprocess: Preprocess
    augment: Augment

    @classmethod
    def make(cls, job: TrainJob, splits: Splits) -> Plan:
        """Raises JobError where job and data do not fit: too long a warmup, class weights for other classes."""
        if not len(splits.train) or not len(splits.validation):
            raise job.error("data", "nothing is left to train on or to validate on; allowed: at least one row in each")
        epochs = Epochs(len(splits.train), job.train.batch_size, job.seed)
        clock = Clock(epochs.steps, epochs.steps * job.train.epochs)
        labels = splits.train.labels
        try:
            weights = class_weights(job.loss.class_weights, labels, len(splits.train.classes))
        except ValueError as error:
            raise job.error("loss.class_weights", str(error)) from None
        task = Classification(splits.train.classes, job.loss.label_smoothing, weights)
        check_metrics(job, task)
        return cls(
            job=job,
            splits=splits,
            epochs=epochs,
            clock=clock,
            rate=learning_rate(job, clock),
            checkpoint_every=max(1, job.train.checkpoint.every.steps(clock)),
            task=task,
            preprocess=Preprocess.fit(splits.train),
            augment=augmentations(job),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; bf16 and fp16 compute under autocast with fp32 weights."""
        return DTYPES[self.job.train.precision]

    def build_model(self) -> nn.Module:
        """The network with its starting weights, on the CPU. Raises JobError for option values that it refuses."""
        section, channels = self.job.model, self.splits.train.shape[0]
        try:
            model = models.build(section.name, channels, self.task.outputs, section.options, self.job.seed)
        except ValueError as error:
            raise self.job.error("model", str(error)) from error
        return model.to(self.dtype)

    def describe_model(self) -> dict[str, Any]:
        """What prediction needs beside the weights, as plain values for `model/model.json`."""
        return {
            "task": "classification",
            "model": {"name": self.job.model.name, "options": self.job.model.options},
            "classes": list(self.splits.train.classes),
            "preprocess": self.preprocess.describe(),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def check_metrics(job: TrainJob, task: Task) -> None:
    """Raises JobError when the job judges by a metric that its epochs will not have."""
    splits = ["validation", *(["clean_train"] if job.train.clean_subset else [])]
    splits += ["averaged_validation"] if job.train.averaging else []
    known = ["train_loss", *(f"{split}_{metric}" for split in splits for metric in task.metric_names)]
    early = job.train.early_stopping
    for field, metric in (("metric", job.train.metric), ("early_stopping.metric", early and early.metric)):
        if metric and metric not in known:
            raise job.error(f"train.{field}", f'"{metric}" is not recorded; allowed: {", ".join(known)}')


def learning_rate(job: TrainJob, clock: Clock) -> Callable[[int], float]:
    """The learning rate as a function of the step. Raises JobError when the schedule does not fit the run."""
    try:
        factor = job.schedule.bind(clock)
    except ValueError as error:
        raise job.error("schedule", str(error)) from None
    return partial(_scaled, factor, job.optimizer.lr)


def _scaled(factor: Callable[[int], float], lr: float, step: int) -> float:
    return lr * factor(step)
