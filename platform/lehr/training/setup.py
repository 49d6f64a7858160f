"""Everything that a job needs before its first step, made and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from lehr import models
from lehr.data.augment import Augment
from lehr.data.dataset import Batch, BatchSampler, DataSubset, Splits
from lehr.data.load import augmentations
from lehr.data.preprocess import Preprocess
from lehr.data.randomness import key
from lehr.data.sampling import balanced
from lehr.data.streaming import StreamedSubset
from lehr.data.targets import readable
from lehr.durations import RunLength
from lehr.errors import JobError, RunError
from lehr.job import Job, Training, TrainJob, check_call
from lehr.models.description import ModelDescription, NetworkDescription
from lehr.models.fit import check_weights
from lehr.models.lightning import Lightning, base_of
from lehr.models.operations import operations
from lehr.models.weights import read_weights, recipe_for
from lehr.own_code import OwnCodeError
from lehr.schedules import GIVEN, TENTH, BaseSchedule, Cyclic, Own, fit, linear_rule, shortened
from lehr.tasks.base import Outputs, Task
from lehr.tasks.find import is_own
from lehr.tasks.forms import USUAL
from lehr.training.averaging import SWA_START, Average, averaged_steps
from lehr.training.callbacks import check_callbacks
from lehr.training.freezing import HEAD_FIRST, Freezing
from lehr.training.lightning_plan import check_lightning, inspect_lightning
from lehr.training.losses import find_loss
from lehr.training.metrics import NONE, Metrics, complete_metrics, make_metrics
from lehr.training.optimizers import check_optimizer, complete_rate, rate_note
from lehr.training.task import check_task, complete_task, make_task, task_of

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.float32, "fp16": torch.float32}

FEW_IMAGES = 100  # of a class, up to which `tests/benchmarks/photographs.py` measured that the head goes first


def check_job(job: TrainJob) -> None:
    """Checks what needs the code of models, losses, optimizers and augmentations but no data. Raises JobError.

    Fills in which values of each metric are better.
    """
    check_optimizer(job)
    check_schedule(job)
    check_task(job)
    find_loss(job, task_of(job, job.error))
    complete_metrics(job, job.error)
    check_callbacks(job)
    augmentations(job)
    if (parts := job.train.gradient_accumulation) > job.train.batch_size:
        what = f"{parts} parts of a batch of {job.train.batch_size} rows; type: train.gradient_accumulation="
        raise job.error("train.gradient_accumulation", f"{what}{job.train.batch_size}, or less")
    try:
        model, taken = models.find(job.model.name, job.model.options)
    except ValueError as error:
        raise job.error("model.name", str(error)) from error
    check_call(model, job.model.options, skip=taken, field="model", error=job.error)
    check_lightning(job, model)
    if base_of(model) and job.task.name != USUAL:
        what = f"{job.model.name} is a LightningModule, whose own steps know classes; allowed: classification"
        raise job.error("task", what)
    recipe_for(job)
    if job.model.weights:
        try:
            check_weights(job.model.weights, job.storage, job.model.name, job.model.options)
        except (ValueError, RunError) as error:
            raise job.error("model.weights", str(error)) from error


def check_schedule(job: TrainJob) -> None:
    """Raises JobError for a schedule of the user's own that is not there, or an option that it does not have."""
    if isinstance(job.schedule, Own):
        try:
            function = job.schedule.function()
        except ValueError as error:
            raise job.error("schedule.name", str(error)) from None
        fields = BaseSchedule.model_fields
        check_call(function, job.schedule.options, skip=GIVEN, fields=fields, field="schedule", error=job.error)


def complete_base(job: Job, base: Training) -> None:
    """Fills in what the optimizer and the metrics of a job's base say of themselves, before trainings are made of it.
    Raises JobError."""

    def error(field: str, what: str) -> JobError:
        return job.error(f"base.{field}", what.replace("optimizer.lr=", "base.optimizer.lr="))

    complete_rate(base, error)
    complete_task(base, error)
    complete_metrics(base, error)


@dataclass(frozen=True)
class Plan:
    """A job and its data, resolved: a pure function of both, so every worker and every attempt makes the same one.

    Attributes:
        sampler: the rows of every batch.
        length: steps of an epoch and of the whole run.
        learning_rate: the learning rate as a function of the step.
        checkpoint_every: steps between checkpoints.
        snapshots: the steps after which a checkpoint is saved and never pruned.
        task: what is learned.
        metrics: what is measured besides what the task itself measures.
        preprocess, augment: what is done with pixels.
        lightning: what is known of the model if it is a LightningModule, which has steps of its own.
    """

    job: TrainJob
    splits: Splits
    sampler: BatchSampler
    length: RunLength
    learning_rate: Callable[[int], float]
    checkpoint_every: int
    snapshots: frozenset[int]
    task: Task[Any]  # what a network returns is known to its task alone
    preprocess: Preprocess
    augment: Augment
    metrics: Metrics = NONE
    lightning: Lightning | None = None

    @classmethod
    def make(cls, job: TrainJob, splits: Splits) -> Plan:
        """Raises JobError where job and data do not fit: too long a warmup, class weights for other classes."""
        if not len(splits.train) or not len(splits.validation):
            raise job.error("data", "nothing is left to train on or to validate on; allowed: at least one row in each")
        sampler = make_sampler(job, splits.train)
        length = RunLength(sampler.steps, sampler.steps * job.train.epochs)
        augment = augmentations(job, compiled=bool(job.train.compile))
        task = make_task(job, splits.train, DTYPES[job.train.precision], mixed=augment.mixes)
        complete_rate(job, job.error)
        complete_task(job, job.error)
        complete_metrics(job, job.error)
        if task.places or task.varies:
            move, draw = task.move if task.places else None, task.vary if task.varies else None
            augment = augmentations(job, compiled=bool(job.train.compile), move=move, choose=draw)
        metrics = make_metrics(job, task, splits.train.classes, DTYPES[job.train.precision])
        preprocess = preprocessing(job, splits.train)
        try:
            around = partial(task.network, shape=preprocess.shape) if task.wraps else None
            models.check(job.model.name, preprocess.shape, task.outputs, job.model.options, around)
        except ValueError as error:
            raise job.error("model", str(error)) from error
        if job.train.averaging:
            try:
                averaged_steps(job.train.averaging, length)
            except ValueError as error:
                raise job.error("train.averaging", str(error)) from None
        try:
            augment.probe(*splits.train.shape)
        except ValueError as error:
            raise job.error("data.augment", str(error)) from None
        plan = cls(
            job=job,
            splits=splits,
            sampler=sampler,
            length=length,
            learning_rate=learning_rate(job, length),
            checkpoint_every=max(1, job.train.checkpoint.every.steps(length)),
            snapshots=frozenset(cycle_ends(job, length)) if job.train.checkpoint.snapshots else frozenset(),
            task=task,
            preprocess=preprocess,
            augment=augment,
            metrics=metrics,
        )
        if ":" in job.model.name and base_of(model := plan.build_model()):
            known = inspect_lightning(job, model, preprocess.shape, task.outputs, length, plan.dtype)
            plan = replace(plan, lightning=known, learning_rate=known.learning_rate or plan.learning_rate)
        logged = known.logged if plan.lightning else ()
        check_metrics(job, (*task.metric_names, *metrics.names, *logged))
        return plan

    def to(self, device: torch.device) -> Plan:
        """The same plan with its rows in the device's memory, if the job asks for that.

        Raises:
            JobError: they do not fit there.
        """
        if self.job.data.cache != "device" or device.type == "cpu":
            return self
        try:
            return replace(self, splits=self.splits.to(device))
        except torch.OutOfMemoryError as error:
            raise self.job.error("data.cache", "the decoded images do not fit into the GPU; allowed: memory") from error

    @property
    def notes(self) -> list[str]:
        """What the user should know of the job before it is trained, such as what was made to fit; a sentence each."""
        job, length = self.job, self.length
        notes = rate_note(job.optimizer) + job.schedule.notes(length) + list(self.task.notes)
        if self.task.mirrored and any(each.name == "flip" for each in job.data.augment):
            notes.append(f"data.augment: flip mirrors images, and {self.task.mirrored}: leave it out where they count")
        if job.optimizer.scale_lr:
            notes += shortened("optimizer.scale_lr.warmup", job.optimizer.scale_lr.warmup, TENTH, length)
        if job.train.averaging and job.train.averaging.start:
            notes += shortened("train.averaging.start", job.train.averaging.start, SWA_START, length)
        if job.finetune:
            notes += shortened("finetune.head_first", job.finetune.head_first, HEAD_FIRST, length)
            notes += shortened("finetune.unfreeze", job.finetune.unfreeze, TENTH, length)
        elif job.model.weights and len(self.splits.train) <= FEW_IMAGES * self.task.outputs:
            notes.append(
                "all layers of the pretrained network are trained alike from the first step; with so few images it is "
                "usually better to train the head first, then the rest at a tenth of its rate, with clipped gradients: "
                "finetune.head_first=20% train.max_gradient_norm=1"
            )
        return notes

    @cached_property
    def clean_train(self) -> DataSubset:
        """The training rows that are also measured without augmentation: fixed ones, no more than validation has."""
        rows, count = self.splits.train, min(self.job.train.evaluated_training_rows, len(self.splits.validation))
        return rows.subset(rows.some_rows(key(self.job.seed, "clean"), count))

    @property
    def flops(self) -> int:
        """Additions and multiplications of a forward pass of one image; 0 where they cannot be counted."""
        shape, section = self.preprocess.shape, self.job.model
        around = partial(self.task.network, shape=shape) if self.task.wraps else None
        return operations(section.name, shape, self.task.outputs, section.options, around)

    @cached_property
    def chance_loss(self) -> float:
        """The loss of a row while the network tells nothing apart; NaN where that means nothing."""
        try:
            return self.task.chance_loss(self.dtype)
        except OwnCodeError:  # it need not make sense of such outputs
            return math.nan

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; bf16 and fp16 compute under autocast with fp32 weights."""
        return DTYPES[self.job.train.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and convolutions in memory."""
        return torch.channels_last if self.job.train.channels_last else torch.contiguous_format

    def inputs(self, pixels: Tensor) -> Tensor:
        """What the network takes, from pixels [rows, channels, height, width] from 0 to 255 on its device."""
        return self.preprocess(pixels, self.dtype).contiguous(memory_format=self.memory_format)

    def arguments(self, batch: Batch) -> tuple[object, ...]:
        """What the network is called with for a batch on its device."""
        return self.task.arguments(self.inputs(batch.inputs), batch.targets)

    def cast(self, outputs: Outputs) -> Outputs:
        """A network's outputs in the type of the weights, which losses and metrics are computed in."""
        return _cast(outputs, self.dtype)

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        """The task's loss summed over the rows, computed in the type of the weights."""
        return self.task.loss(*self.known(self.cast(outputs), targets))

    def known(self, outputs: Outputs, targets: Any) -> tuple[Outputs, Any]:
        """Outputs and targets as the task gets them: one of a user's own never sees a row that could not be read."""
        if not self.splits.train.decodes_lazily or not is_own(self.job.task.name) or not isinstance(outputs, Tensor):
            return outputs, targets
        rows = readable(targets)
        return outputs[rows], targets[rows]

    def build_model(self) -> nn.Module:
        """The network with its starting weights, on the CPU. Raises JobError for option values that it refuses."""
        section, shape = self.job.model, self.preprocess.shape
        try:
            around = partial(self.task.network, shape=shape) if self.task.wraps else None
            model = models.build(section.name, shape[0], self.task.outputs, section.options, self.job.seed, around)
            models.check_outputs(model, section.name, torch.zeros(2, *shape), None if around else self.task.outputs)
        except ValueError as error:
            raise self.job.error("model", str(error)) from error
        if section.weights:
            try:
                weights, classes = read_weights(section.weights, self.job.storage, section.name)
                models.start_from(model, weights, self.task.told_apart(self.splits.train.classes), classes)
            except (ValueError, RunError) as error:
                raise self.job.error("model.weights", str(error)) from error
        return model.to(self.dtype)

    def freezing(self, model: nn.Module) -> Freezing | None:
        """Which parts of the pretrained network train when; None where all of it trains from the start.

        Raises:
            JobError: more blocks are to be frozen than there are, or no head was found.
        """
        if self.job.finetune is None:
            return None
        try:
            head = models.head_of(model, self.task.outputs)
            return Freezing(self.job.finetune, self.length, model, head)
        except ValueError as error:
            raise self.job.error("finetune", str(error)) from None

    def trained(self, model: nn.Module, steps: int) -> dict[str, int]:
        """How much of the network the first `steps` steps of the run train, as the description of a model says it:
        `trained_parameters` of `parameters` and, of a pretrained network, `trained_blocks` of the `blocks` below its
        head."""
        every = dict.fromkeys(model.parameters())
        counts = {"parameters": sum(each.numel() for each in every)}
        if (freezing := self.freezing(model)) is None:
            return {"trained_parameters": sum(each.numel() for each in every if each.requires_grad), **counts}
        trained = freezing.trained(steps)
        below = {each for block in freezing.blocks for each in block.parameters()}
        moved = below.intersection(each for block in trained for each in block.parameters())
        return {
            "trained_parameters": sum(each.numel() for each in every if each in moved or each not in below),
            **counts,
            "trained_blocks": len(trained),
            "blocks": len(freezing.blocks),
        }

    def build_average(self, model: nn.Module) -> Average | None:
        """The average of the weights that the job asks for."""
        fixed_statistics = self.job.finetune is not None and self.job.finetune.batch_norm == "frozen"
        averaging = self.job.train.averaging
        return Average(averaging, model, self.length, fixed_statistics) if averaging else None

    def describe_model(self) -> ModelDescription:
        """What prediction needs beside the weights."""
        return ModelDescription(
            task=self.job.task.name,
            task_options=self.job.task.options,
            learned=self.task.state(),
            network=NetworkDescription(self.job.model.name, self.job.model.options),
            classes=self.task.told_apart(self.splits.train.classes),
            preprocess=self.preprocess.describe(),
            dtype=str(self.dtype).removeprefix("torch."),
            activation=self.task.activation,
        )


def _cast(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    """Floating-point tensors, alone or in tuples, lists and mappings, as `dtype`."""
    if isinstance(outputs, Tensor):
        return outputs.to(dtype) if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return {name: _cast(value, dtype) for name, value in outputs.items()}
    return type(outputs)(_cast(value, dtype) for value in outputs) if isinstance(outputs, list | tuple) else outputs


def make_sampler(job: TrainJob, rows: DataSubset) -> BatchSampler:
    """The batches of the training rows. Raises JobError where streaming rules the job's sampling out."""
    size, even = job.train.batch_size, job.data.sampling == "balanced"
    if not isinstance(rows, StreamedSubset):
        return BatchSampler(len(rows), size, job.seed, balanced(rows.labels) if even else rows.order)
    if even:
        raise job.error("data.sampling", "balanced draws from all rows; allowed with data.cache: memory")
    return rows.sampler(size, job.seed, job.data.shards)


def preprocessing(job: TrainJob, rows: DataSubset) -> Preprocess:
    """How pixels are prepared: as for the weights that the job starts from, else by statistics of its own rows."""
    recipe = recipe_for(job)
    limits, resize, interpolation = job.data.pixel_range, recipe.resize, recipe.interpolation
    if recipe.mean is None or recipe.std is None:
        found = replace(Preprocess.fit(rows), pixel_range=limits, resize=resize, interpolation=interpolation)
        return replace(found, letterbox=recipe.letterbox, scaled=job.data.decode == "scaled")
    channels, height, width = rows.shape
    wanted = recipe.channels or channels
    if channels == 4 and wanted != 4:
        whose = f"the weights {job.model.weights}" if job.model.weights else "model.preprocessing.mean and std"
        raise job.error("data.channels", f"{whose} take images of {wanted} channels; allowed: auto, 1, 3")
    mean, std = (each * wanted if len(each) == 1 else each for each in (recipe.mean, recipe.std))
    how = (limits, resize, interpolation, recipe.letterbox, job.data.decode == "scaled")
    return Preprocess(height, width, wanted, mean, std, *how)


def check_metrics(job: TrainJob, names: Sequence[str]) -> None:
    """Raises JobError when the job names a metric that its epochs will not record.

    Args:
        names: what is measured on each split.
    """
    splits = ["validation", *(["clean_train"] if job.train.evaluated_training_rows else [])]
    splits += ["averaged_validation"] if job.train.averaging else []
    known = ["train_loss", *(f"{split}_{metric}" for split in splits for metric in names)]
    early = job.train.early_stopping
    for field, metric in (("metric", job.train.metric), ("early_stopping.metric", early and early.metric)):
        if metric and metric not in known:
            what = f'"{metric}" is not recorded; allowed: {", ".join(known[:40])}{", …" if len(known) > 40 else ""}'
            raise job.error(f"train.{field}", what)


def learning_rate(job: TrainJob, length: RunLength) -> Callable[[int], float]:
    """The learning rate as a function of the step. Raises JobError when the schedule does not fit the run."""
    lr, rule = job.optimizer.rate, job.optimizer.scale_lr
    try:
        factor = job.schedule.bind(length)
    except ValueError as error:
        raise job.error("schedule", str(error)) from None
    if rule is None:
        return lambda step: lr * factor(step)
    warmup = fit(rule.warmup, TENTH, length).steps(length)
    if warmup > length.total_steps:
        what = f"{rule.warmup} is {warmup} steps, longer than the run of {length.total_steps} steps; allowed: less, "
        what += "such as optimizer.scale_lr.warmup=10%"
        raise job.error("optimizer.scale_lr.warmup", what)
    scale = linear_rule(job.train.batch_size, rule.base_batch, warmup)
    return lambda step: lr * factor(step) * scale(step)


def cycle_ends(job: TrainJob, length: RunLength) -> list[int]:
    """The steps taken at the end of each cycle. Raises JobError where there are none, or they do not fit."""
    if not isinstance(job.schedule, Cyclic):
        what = f"the schedule {job.schedule.name} has no cycles; allowed with schedule: cyclic"
        raise job.error("train.checkpoint.snapshots", what)
    try:
        return job.schedule.cycle_ends(length)
    except ValueError as error:
        raise job.error("schedule", str(error)) from None
