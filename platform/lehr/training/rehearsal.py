"""A job without its data: what is planned and built for it, over random images of the right shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lehr.data.captions import as_labels
from lehr.data.dataset import Images
from lehr.data.door import in_bytes
from lehr.data.labels import Labels, Ragged
from lehr.data.load import OpenedSources, splits
from lehr.formatting import count_of
from lehr.job import TrainJob
from lehr.machine import cores, memory
from lehr.tasks.caption_text import from_bytes
from lehr.tasks.forms import LabelKind
from lehr.training.optimizers import Group, build_optimizer, groups_of
from lehr.training.setup import Plan

HALF = {"validation": 0.5, "fold": None, "group": None, "stratify": "auto"}
"""What a data section says for half of its rows to be held out, of whatever data."""


def plan_of_noise(job: TrainJob, opened: OpenedSources) -> Plan:
    """The job's plan over two batches of noise, or a few rows of each class; half of them are for validation.

    Raises:
        JobError: the job cannot be run as it is written.
    """
    height, width, channels = opened.likely_shape
    size = min(job.train.batch_size, opened.main.rows)
    rows = max(2 * size, 2 * len(opened.main.classes))
    pixels = np.random.default_rng(0).integers(0, 256, (rows, height, width, channels), np.uint8)
    labels = _labels(opened.kind, rows, len(opened.main.classes), (height, width))
    if opened.kind == "captions":  # of which a vocabulary is made
        labels = _spread(opened.main.labels(), rows)
    images = Images(pixels, labels, opened.main.classes)
    # About as many steps as the job itself has, so that a warmup in steps fits as it does there.
    epochs = job.train.epochs * -(-opened.main.rows // size)
    short = job.model_copy(
        update={
            "data": job.data.model_copy(update={**HALF, "test": "none", "limit": None}),
            "train": job.train.model_copy(update={"epochs": epochs}),
        }
    )
    return Plan.make(short, splits(short, {"train": images}))


def _spread(captions: Labels, rows: int) -> Labels:
    """All captions of a source for so many rows, as evenly as they can be."""
    of_rows: list[list[str]] = [[] for _ in range(rows)]
    for number in range(max(rows, len(captions))):
        of_rows[number % rows] += from_bytes(captions.row(number % len(captions)))
    return as_labels(of_rows)


def _labels(kind: LabelKind, rows: int, names: int, size: tuple[int, int]) -> Labels:
    """Labels of this kind, of which no two rows in a row have the same, for images of this height and width."""
    numbers = np.arange(rows)
    if kind == "boxes":
        whole = [np.zeros(rows), np.zeros(rows), np.full(rows, size[1]), np.full(rows, size[0]), np.zeros(rows)]
        return Ragged.of(np.column_stack([numbers % names, *whole]).astype(np.float64), np.ones(rows, np.int64))
    if kind == "mask":
        pixels = numbers[:, None, None] + np.arange(size[0])[:, None] + np.arange(size[1])
        return (pixels % names).astype(np.uint8)
    if kind == "class":
        return numbers.astype(np.int64) % names
    if kind == "classes":
        return ((numbers[:, None] + np.arange(names)) % 2).astype(np.int8)
    return np.repeat(numbers[:, None].astype(np.float64), names, axis=1)


def parameter_groups_of(job: TrainJob) -> list[Group]:
    """Which parameters of the job's network are trained by what, and on which terms.

    Raises:
        JobError: the job cannot be run as it is written.
    """
    plan = plan_of_noise(job, OpenedSources(job))
    model = plan.build_model()
    freezing = plan.freezing(model)
    optimizer = build_optimizer(job, model, freezing.rates() if freezing else None, plan.task.outputs)
    return groups_of(optimizer, model)


@dataclass(frozen=True)
class JobFacts:
    """What a training would be, found out without training.

    Attributes:
        rows: images by split, as far as the data say before anything is decoded.
        classes: how many. shape: (height, width, channels) of an image. image_bytes: of all decoded images.
        parameters, trained: numbers in the network, and those of them that are trained.
        weight_bytes: of the network; its gradients take as much again, and what optimizers keep up to twice that.
        steps_per_epoch, steps: optimizer steps.
        machine: what it would run on here.
        trainings: how many of this length there are.
    """

    rows: Mapping[str, int]
    classes: int
    shape: tuple[int, int, int]
    image_bytes: int
    parameters: int
    trained: int
    weight_bytes: int
    steps_per_epoch: int
    steps: int
    machine: str
    trainings: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        height, width, channels = self.shape
        rows = ", ".join(f"{count:,} {split}" for split, count in self.rows.items())
        frozen = "" if self.trained == self.parameters else f", {self.trained:,} of them trained"
        epochs = self.steps // self.steps_per_epoch if self.steps_per_epoch else 0
        decoded = f"{count_of(self.classes, 'class', 'classes')}; {in_bytes(self.image_bytes)} decoded"
        return [
            f"data     {rows} images of {height} × {width} × {channels}, {decoded}",
            f"network  {self.parameters:,} parameters{frozen}; weights {in_bytes(self.weight_bytes)}",
            f"length   {count_of(epochs, 'epoch')} of {count_of(self.steps_per_epoch, 'step')}: {self.steps:,} steps"
            + (f", in each of {self.trainings} folds" if self.trainings > 1 else ""),
            f"machine  {self.machine}",
        ]


def facts_of(job: TrainJob) -> JobFacts:
    """Opens the data and builds the network; nothing is decoded or trained.

    Raises:
        JobError: the job cannot be run as it is written.
        LehrError: its data cannot be read.
    """
    opened = OpenedSources(job)
    plan = plan_of_noise(job, opened)
    model = plan.build_model()
    numbers = list(model.parameters())
    freezing = plan.freezing(model)
    build_optimizer(job, model, freezing.rates() if freezing else None, plan.task.outputs)  # refuses what does not fit
    training, held_out = opened.split_ids()
    rows = {"training": len(training), **({} if held_out is None else {"validation": len(held_out)})}
    rows |= {split: source.rows for split, source in opened.extra.items()}
    steps = math.ceil(len(training) / job.train.batch_size)
    return JobFacts(
        rows=rows,
        classes=len(opened.main.classes),
        shape=opened.likely_shape,
        image_bytes=opened.nbytes,
        parameters=sum(each.numel() for each in numbers),
        trained=sum(each.numel() for each in numbers if each.requires_grad),
        weight_bytes=sum(each.numel() * each.element_size() for each in numbers),
        steps_per_epoch=steps,
        steps=steps * job.train.epochs,
        machine=this_machine(),
    )


def this_machine() -> str:
    """`2 cores, 24 GB of memory, no GPU`."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{count_of(cores(), 'core')}, {in_bytes(memory())} of memory, {', '.join(gpus) or 'no GPU'}"
