"""How far each optimizer with nothing but its name is from the best learning rate of a sweep.

    python -m tests.benchmarks.usual_rates FILE.jsonl [--split develop|report] [--only adam,timm/lion] [--minutes 8]
    python -m tests.benchmarks.usual_rates FILE.jsonl --table

A small network is trained on the digits, with lehr's default batch and length, and on 3,000 images of CIFAR-10 (at
16 × 16 pixels, with batch norm, in batches of 64 for 12 epochs; 2,000 others validate): at the default rate, and at
factors of √10 around it. The default was chosen on the rows and the seed of `develop`; those of `report` are others.
Each training is a line of the file, and what is in it already is not trained again, so that a campaign can be cut into
parts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from lehr.data.batches import batches
from lehr.data.load import OpenedSources, Splits, splits
from lehr.job import TrainJob, from_dict
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.optimizers import OPTIMIZERS
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep
from tests.benchmarks.cifar import needed

TIMM = "adabelief adafactorbv adan adopt lamb laprop lion madgrad mars novograd sgd"
NAMES = (*OPTIMIZERS, *(f"timm/{name}" for name in TIMM.split()))
DATA = ("digits", "cifar")
FACTORS = (0, 1, -1, 2, -2)
"""Rates of the sweep, in half decades from the default."""
SEEDS: dict[str, tuple[int, ...]] = {"develop": (1,), "report": (101, 102, 103)}
FIRST_ROW = {"develop": 0, "report": 20_000}
TRAIN_ROWS, VALIDATION_ROWS, SIDE = 3000, 2000, 16
LOOKED_AT = 3  # the best of the last epochs counts, as the best epoch of a run does
ALLOWED = 3.0  # points


@dataclass(frozen=True)
class Cell:
    """One training: its rate is the default times 10 ** (half / 2)."""

    split: str
    data: str
    optimizer: str
    half: int
    seed: int


def job_of(optimizer: str, data: Mapping[str, Any], seed: int, rate: float | None = None) -> TrainJob:
    """A small job with this optimizer; with its default rate, unless one is given."""
    section = {"name": optimizer} | ({} if rate is None else {"lr": rate})
    small = (
        {}
        if data["source"] == "digits"
        else {"model": {"width": 8, "norm": "batch"}, "train": {"epochs": 12, "batch_size": 64}}
    )
    job = from_dict({"kind": "train", "seed": seed, "data": dict(data), "optimizer": section, **small})
    assert isinstance(job, TrainJob)
    return job


@cache
def rows_of(data: str, split: str, seed: int) -> tuple[dict[str, Any], Splits]:
    """The section of a data set, and its rows, decoded."""
    section: dict[str, Any] = {"source": "digits"}
    if data == "cifar":
        folder = Path(tempfile.mkdtemp())
        table = pq.read_table(needed()).slice(FIRST_ROW[split], TRAIN_ROWS + VALIDATION_ROWS)
        for name, part in (("train", table[:TRAIN_ROWS]), ("validation", table[TRAIN_ROWS:])):
            pq.write_table(part, folder / f"{name}.parquet")
        files = {"path": str(folder / "train.parquet"), "validation": str(folder / "validation.parquet")}
        section = {"source": "parquet", **files, "test": "none", "image_size": SIDE}
    job = job_of("sgd", section, seed)
    return section, splits(job, OpenedSources(job).decode())


def accuracy(cell: Cell) -> tuple[float, float]:
    """The rate of a training, and the validation accuracy that it reaches; 0 where the loss is no number."""
    section, rows = rows_of(cell.data, cell.split, cell.seed)
    rate = job_of(cell.optimizer, section, cell.seed).optimizer.rate
    rate = float(f"{rate * 10 ** (cell.half / 2):.3g}")
    job = job_of(cell.optimizer, section, cell.seed, rate if cell.half else None)
    plan, group = Plan.make(job, rows), Group()
    model = prepare_model(plan, group)
    model.train()
    train_step = TrainStep(plan, model, group)
    best = 0.0
    for epoch in range(job.train.epochs):
        found = batches(rows.train, plan.sampler, plan.augment, epoch, 0, 0, 1, group.device)
        for within, batch in enumerate(found):
            loss, _, _ = train_step(batch, plan.sampler.size(within), epoch * plan.sampler.steps + within)
        if not math.isfinite(loss):
            break
        if epoch >= job.train.epochs - LOOKED_AT:
            best = max(best, evaluate(model, rows.validation, plan, group)["accuracy"])
    return rate, best


def cells(split: str, names: Sequence[str], data: Sequence[str], factors: Sequence[int]) -> Iterator[Cell]:
    """All trainings of a campaign, those at the default rates first."""
    for half in factors:
        for seed in SEEDS[split]:
            for name in names:
                for each in data:
                    yield Cell(split, each, name, half, seed)


def read(file: Path) -> dict[Cell, tuple[float, float]]:
    """What was measured: the rate and the accuracy of each training."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        entry = json.loads(line)
        rate, reached = entry.pop("rate"), entry.pop("accuracy")
        found[Cell(**entry)] = (rate, reached)
    return found


def table(measured: Mapping[Cell, tuple[float, float]], split: str) -> str:
    """For each optimizer: its default rate, and on each data set what it reaches, and what the best rate does."""
    means: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    defaults: dict[str, float] = {}
    for cell, (rate, reached) in measured.items():
        if cell.split == split:
            means[cell.optimizer, cell.data, rate].append(100 * reached)
            if not cell.half:
                defaults[cell.optimizer] = rate
    lines = ["| optimizer | rate | " + " | ".join(f"{data}, best of the sweep | behind" for data in DATA) + " |"]
    lines += ["|---|---|" + "---|" * 2 * len(DATA)]
    for name, rate in sorted(defaults.items()):
        row = [name, f"{rate:g}"]
        for data in DATA:
            found = {r: sum(v) / len(v) for (n, d, r), v in means.items() if (n, d) == (name, data)}
            if not found:
                row += ["–", "–"]
                continue
            best = max(found, key=lambda each: found[each])
            behind = found[best] - found[rate]
            far = f"**{behind:.1f}**" if behind > ALLOWED else f"{behind:.1f}"
            row += [f"{found[rate]:.1f} %, {found[best]:.1f} % at {best:g}", far]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--split", choices=tuple(SEEDS), default="develop")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(NAMES))
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(DATA))
    parser.add_argument("--factors", type=lambda text: [int(each) for each in text.split(",")], default=list(FACTORS))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args(arguments)
    until = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    measured = read(options.file)
    left = [] if options.table else [*cells(options.split, options.only, options.data, options.factors)]
    left = [each for each in left if each not in measured]
    while left and time.monotonic() < until:
        cell = left.pop(0)
        began = time.monotonic()
        rate, reached = accuracy(cell)
        measured[cell] = (rate, reached)
        with options.file.open("a") as stream:
            stream.write(json.dumps({**asdict(cell), "rate": rate, "accuracy": reached}) + "\n")
        print(f"{cell} {rate:g}: {reached:.1%}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    print(table(measured, options.split))
    print(f"\n{len(left)} trainings are left." if left else "\nAll were trained.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
