"""A job without its data: what is planned and built for it, over random images of the right shape."""

from __future__ import annotations

import numpy as np

from lehr.data.dataset import Images
from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob
from lehr.tasks.forms import LabelKind
from lehr.training.optimizers import Group, build_optimizer, groups_of
from lehr.training.setup import Plan


def plan_of_noise(job: TrainJob, opened: OpenedSources) -> Plan:
    """The job's plan over two batches of noise, or a few rows of each class; half of them are for validation.

    Raises:
        JobError: the job cannot be run as it is written.
    """
    height, width, channels = opened.likely_shape
    size = min(job.train.batch_size, opened.main.rows)
    rows = max(2 * size, 2 * len(opened.main.classes))
    pixels = np.random.default_rng(0).integers(0, 256, (rows, height, width, channels), np.uint8)
    images = Images(pixels, _labels(opened.kind, rows, len(opened.main.classes)), opened.main.classes)
    # About as many steps as the job itself has, so that a warmup in steps fits as it does there.
    epochs = job.train.epochs * -(-opened.main.rows // size)
    short = job.model_copy(
        update={
            "data": job.data.model_copy(update={"validation": 0.5, "test": "none", "limit": None}),
            "train": job.train.model_copy(update={"epochs": epochs}),
        }
    )
    return Plan.make(short, splits(short, {"train": images}))


def _labels(kind: LabelKind, rows: int, names: int) -> np.ndarray:
    """Labels of this kind, of which no two rows in a row have the same."""
    numbers = np.arange(rows)
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
