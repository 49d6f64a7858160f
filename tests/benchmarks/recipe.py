"""A recipe from a bad start against a random search with five times the budget, on digits and on part of CIFAR-10.

    python -m tests.benchmarks.recipe [CIFAR_TRAIN.parquet CIFAR_TEST.parquet]

Both choose on the same validation images. The random search draws rate (1e-4 to 1) and weight decay (1e-6 to 1e-2)
evenly in their logarithms, trains each draw in full with the schedule that the recipe uses for its last training, and
knows nothing of the bad start.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from lehr.clusters.machine import cores
from lehr.data.load import Opened, splits
from lehr.data.randomness import key, uniform
from lehr.driver import run_job
from lehr.job import TrainJob, from_dict, to_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe import course, steps
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

STARTS = {"rate 10": 10.0, "rate 1e-7": 1e-7}
TIMES = 5

DIGITS: dict[str, Any] = {
    "data": {"source": "digits", "validation": 0.4},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.05},
    "train": {"epochs": 12, "batch_size": 64, "clean_subset": 256},
}
CIFAR: dict[str, Any] = {
    "data": {"source": "parquet"},
    "model": {"name": "small_cnn", "width": 8, "norm": "batch"},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.05},
    "train": {"epochs": 15, "batch_size": 64, "clean_subset": 256},
}


def main() -> None:
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        compare("digits", DIGITS, 80, place)
        if len(sys.argv) > 2:
            data = (
                CIFAR["data"] | part_of(sys.argv[1], 2000, place) | {"validation": str(rows(sys.argv[2], 2000, place))}
            )
            compare("CIFAR-10, 2,000 images", CIFAR | {"data": data}, 90, place)


def compare(name: str, base: dict[str, Any], budget: int, place: Path) -> None:
    print(f"\n{name}, a recipe of {budget} epochs, a random search of {TIMES} times what the recipe took")
    most = 0.0
    found = []
    for start, rate in STARTS.items():
        began = time.time()
        value, spent, setting = recipe(base, rate, budget, place / f"{name[:5]}-{rate:g}")
        found.append((start, value))
        most = max(most, spent)
        seconds = time.time() - began
        print(f"  recipe from {start:10} {value:7.2%}  {spent:5.0f} epochs {seconds:5.0f} s  {setting}", flush=True)
    began = time.time()
    value, trials = random_search(base, int(TIMES * most / base["train"]["epochs"]))
    spent, seconds = trials * base["train"]["epochs"], time.time() - began
    print(f"  random search          {value:7.2%}  {spent:5.0f} epochs {seconds:5.0f} s")
    for start, reached in found:
        print(f"  recipe from {start:10} minus random search: {100 * (reached - value):+.2f} points")


def recipe(base: dict[str, Any], rate: float, budget: int, place: Path) -> tuple[float, float, str]:
    """(validation accuracy, epochs spent with everything counted, setting) of a recipe."""
    bad = base | {"optimizer": base["optimizer"] | {"lr": rate}}
    job = from_dict({"kind": "recipe", "base": bad, "budget": f"{budget}ep", "storage": str(place)})
    assert isinstance(job, RecipeJob)
    with contextlib.redirect_stdout(io.StringIO()):
        done = steps.read(run_job(job, debug=True).folder)
    assert done.last
    assert done.initial
    assert done.overfit
    by_heart = done.overfit.steps * done.overfit.batch / sum(done.initial.counts)
    return done.last.value, course.spent(job, done) + by_heart, str(done.last.trained.setting)


def random_search(base: dict[str, Any], trials: int) -> tuple[float, int]:
    """The best validation accuracy of so many full trainings at random rates and weight decays."""
    where, best = key(0, "random search"), 0.0
    plain = from_dict(base)
    assert isinstance(plain, TrainJob)
    data = Opened(plain).decode()
    for trial in range(trials):
        a, b = (float(uniform(where, torch.tensor([trial]), draw)[0]) for draw in (0, 1))
        optimizer = {"optimizer.lr": 10 ** (-4 + 4 * a), "optimizer.weight_decay": 10 ** (-6 + 4 * b)}
        job = from_dict(base, {**optimizer, "schedule": {"name": "cosine", "warmup": "5%"}})
        assert isinstance(job, TrainJob)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception):  # a rate may be too high
            run = RunFolder.create(Folder.at(folder), to_dict(job), {})
            train(Plan.make(job, splits(job, data)), run, Group())
            best = max(best, run.progress()["best"]["value"])
    return best, trials


def part_of(file: str, count: int, place: Path) -> dict[str, str]:
    return {"path": str(rows(file, count, place))}


def rows(file: str, count: int, place: Path) -> Path:
    """The first rows of a Parquet file as one of its own."""
    out = place / f"{Path(file).stem}-{count}.parquet"
    pq.write_table(pq.read_table(file).slice(0, count), out)
    return out


if __name__ == "__main__":
    main()
