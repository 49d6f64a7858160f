"""What most of these tests need: training in this process, on a few synthetic images, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lehr.data.dataset import DataSubset, Images, Splits
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.trust import give

ROWS, SIZE = 48, 12


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny layers are slower on several threads, above all where other processes use the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def synthetic(rows: int = ROWS, channels: int = 3, size: int = SIZE, classes: int = 3) -> Splits:
    """Noise with a bright band whose height shows the class; a third of the rows for validation."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    pixels = random.integers(0, 128, (rows, size, size, channels), dtype=np.uint8)
    for row, label in enumerate(labels):
        pixels[row, label * size // classes : (label + 1) * size // classes] += 100
    images = Images(pixels, labels.astype(np.int64), tuple("abcdefgh"[:classes]))
    everything = torch.arange(rows)
    return Splits(DataSubset(images, everything[rows // 3 :]), DataSubset(images, everything[: rows // 3]))


def job_of(**overrides: Any) -> TrainJob:
    """A tiny job with overrides, whose dots are written as two underscores (`train__epochs=3`)."""
    base = {
        "model": {"name": "small_cnn", "width": 8},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "train": {"epochs": 2, "batch_size": 8, "evaluated_training_rows": 0},
        "seed": 1,
    }
    job = from_dict(base, overrides={path.replace("__", "."): value for path, value in overrides.items()})
    assert isinstance(job, TrainJob)
    return job


def plan_of(splits: Splits | None = None, **overrides: Any) -> Plan:
    job = job_of(**overrides)
    give(to_dict(job))
    check_job(job)
    return Plan.make(job, splits or synthetic())


@pytest.fixture
def train_tiny(tmp_path: Path) -> Callable[..., RunFolder]:
    """Trains the tiny job on synthetic images in this process and returns its run."""

    def run(splits: Splits | None = None, **overrides: Any) -> RunFolder:
        plan = plan_of(splits, **overrides)
        folder = Folder.at(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        made = RunFolder.create(folder, to_dict(plan.job))
        train(plan, made, Group())
        return made

    return run


def losses(run: RunFolder) -> list[float]:
    return run.steps()["loss"].to_numpy().tolist()
