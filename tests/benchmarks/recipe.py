"""A recipe from a bad start against a random search with five times the budget, on digits and on part of CIFAR-10.

    python -m tests.benchmarks.recipe [CIFAR_TRAIN.parquet CIFAR_TEST.parquet]

Both choose their model on the same validation images and are compared on test images: the best of many trainings looks
better on the images by which it was chosen than it is, and the more so the more trainings there were. The random search
samples the learning rate (1e-4 to 1) and the weight decay (1e-6 to 1e-2) on a log scale, trains each sample in full
with the schedule of the recipe's final training, and does not see the bad start.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import lehr
from lehr.data.load import OpenedSources, splits
from lehr.data.randomness import key, uniform
from lehr.job import TrainJob, from_dict, to_dict
from lehr.job.recipe import RecipeJob
from lehr.kinds import run_job
from lehr.machine import cores
from lehr.recipe.budget import spent_epochs
from lehr.recipe.state import RecipeState
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

STARTS = {"rate 10": 10.0, "rate 1e-7": 1e-7}
TIMES = 5

DIGITS: dict[str, Any] = {
    "data": {"source": "parquet"},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.05},
    "train": {"epochs": 12, "batch_size": 64, "evaluated_training_rows": 256},
}
CIFAR: dict[str, Any] = {
    "data": {"source": "parquet"},
    "model": {"name": "small_cnn", "width": 8, "norm": "batch"},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.05},
    "train": {"epochs": 15, "batch_size": 64, "evaluated_training_rows": 256},
}


def main() -> None:
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        digits = pq.read_table(Path(lehr.__file__).parent / "data/digits.parquet")
        order = np.random.default_rng(0).permutation(len(digits))
        compare("digits", DIGITS, 80, place, [digits.take(some) for some in np.split(order, [700, 1100])])
        if len(sys.argv) > 2:
            train, test = (pq.read_table(file) for file in sys.argv[1:3])
            tables = [train.slice(0, 2000), test.slice(0, 2000), test.slice(2000)]
            compare("CIFAR-10, 2,000 images", CIFAR, 90, place, tables)


def compare(name: str, job: dict[str, Any], budget: int, place: Path, tables: Sequence[pa.Table]) -> None:
    files = [place / f"{name[:5]}-{split}.parquet" for split in ("train", "validation", "test")]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, file)
    data = dict(zip(("path", "validation", "test"), map(str, files), strict=True))
    base = job | {"data": job["data"] | data}
    print(f"\n{name}, a recipe of {budget} epochs, a random search with {TIMES} times the epochs that the recipe took")
    print(f"{'':23}{'test':>9}{'validation':>12}{'epochs':>8}{'seconds':>9}")
    most = 0.0
    found = []
    for start, rate in STARTS.items():
        began = time.time()
        scores, spent, setting = recipe(base, rate, budget, place / f"{name[:5]}-{rate:g}")
        found.append((start, scores[0]))
        most = max(most, spent)
        show(f"recipe from {start}", scores, spent, began, setting)
    began = time.time()
    scores, trials, setting = random_search(base, int(TIMES * most / base["train"]["epochs"]))
    show("random search", scores, trials * base["train"]["epochs"], began, setting)
    for start, reached in found:
        print(f"recipe from {start:10} minus random search: {100 * (reached - scores[0]):+.2f} points on test images")


Scores = tuple[float, float]
"""Test and validation accuracy."""


def show(who: str, scores: Scores, epochs: float, began: float, setting: str) -> None:
    test, validation = scores
    seconds = time.time() - began
    print(f"{who:23}{test:9.2%}{validation:12.2%}{epochs:8.0f}{seconds:9.0f}  {setting}", flush=True)


def recipe(base: dict[str, Any], rate: float, budget: int, place: Path) -> tuple[Scores, float, str]:
    """(accuracies, epochs of all steps, hyperparameters) of a recipe."""
    bad = base | {"optimizer": base["optimizer"] | {"lr": rate}}
    job = from_dict({"kind": "recipe", "base": bad, "budget": f"{budget}ep", "storage": str(place)})
    assert isinstance(job, RecipeJob)
    with contextlib.redirect_stdout(io.StringIO()):
        state = RecipeState.read(run_job(job, debug=True).folder)
    assert state.final
    assert state.initial
    assert state.overfit
    assert state.final.test is not None
    memorising = state.overfit.steps * state.overfit.batch / sum(state.initial.counts)
    scores = state.final.test, state.final.value
    return scores, spent_epochs(state) + memorising, str(state.final.trained.setting)


def random_search(base: dict[str, Any], trials: int) -> tuple[Scores, int, str]:
    """(accuracies, trials, hyperparameters) of the random search's best trial on validation images."""
    where, best = key(0, "random search"), ((0.0, 0.0), "")
    plain = from_dict(base)
    assert isinstance(plain, TrainJob)
    data = OpenedSources(plain).decode()
    for trial in range(trials):
        a, b = (float(uniform(where, torch.tensor([trial]), draw)[0]) for draw in (0, 1))
        rate, decay = 10 ** (-4 + 4 * a), 10 ** (-6 + 4 * b)
        changes = {"optimizer.lr": rate, "optimizer.weight_decay": decay}
        job = from_dict(base, {**changes, "schedule": {"name": "cosine", "warmup": "5%"}})
        assert isinstance(job, TrainJob)
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.suppress(Exception),
        ):  # the learning rate may be too high
            run = RunFolder.create(Folder.at(folder), to_dict(job))
            train(Plan.make(job, splits(job, data)), run, Group())
            ended = run.outcome()
            assert ended
            assert ended.best.value is not None
            test = ended.metrics["test_accuracy"]
            assert test is not None
            words = f"learning rate {rate:.2g}, weight decay {decay:.2g}"
            best = max(best, ((test, ended.best.value), words), key=lambda each: each[0][1])
    return best[0], trials, best[1]


if __name__ == "__main__":
    main()
