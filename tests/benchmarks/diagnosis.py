"""How often the diagnosis is right: real runs that train into each condition, judged by their recorded curves.

    python -m tests.benchmarks.diagnosis [--seeds 61 62 63] [--cifar cifar10-train.parquet] [--write]

Each condition is a job file in `conditions/`; the thresholds were set on seeds 0 to 3, not on the seeds used here.
Everything runs in this process, as with `lehr run --debug`, on one thread. `--write` saves the table beside this
file. The override of the first finding is then applied and the job runs again, to see whether the result improves.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import lehr.data
from lehr.curves.diagnosis import diagnose
from lehr.curves.findings import Diagnosis, as_yaml
from lehr.curves.record import Curves
from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError, TrainingError
from lehr.job import TrainJob, load, to_dict
from lehr.runs import Environment, Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

HERE = Path(__file__).parent

# Condition -> the diagnosis that must come first. Several conditions may share one.
CONDITIONS = {
    "diverged": "diverged",
    "diverged_nan": "diverged",
    "rate_too_low": "rate_too_low",
    "bad_initialization": "bad_initialization",
    "plateau": "plateau",
    "decayed_too_early": "decayed_too_early",
    "too_short": "too_short",
    "overfitting": "overfitting",
    "underfitting": "underfitting",
    "oscillating": "oscillating",
    "not_learning": "not_learning",
    "not_learning_dead": "not_learning",
    "at_chance": "at_chance",
}
ALSO_RIGHT = {("too_short", "rate_too_low"), ("underfitting", "too_regularised")}
"""Six epochs at a thirtieth of the usual rate are both; so are few channels whose features are dropped to 15 %."""
NO_REMEDY = {"at_chance"}  # its advice is a test of the labels, not a better run

SGD, ADAM = {"optimizer.lr": 0.1}, {"optimizer": {"name": "adam", "lr": 3e-3}}
HEALTHY: list[dict[str, Any]] = [
    {},
    {"optimizer.lr": 0.02},
    *({**SGD, "schedule": name} for name in ("step", "cosine", "linear", "polynomial", "inverse_sqrt", "wsd")),
    {**SGD, "schedule": {"name": "exponential"}},
    {**SGD, "schedule": {"name": "cyclic"}},
    {**SGD, "schedule": {"name": "one_cycle"}},
    {**SGD, "schedule": {"name": "cosine", "warmup": "2ep"}, "train.batch_size": 128},
    {**SGD, "schedule": "cosine", "model.norm": "group"},
    {**SGD, "schedule": "cosine", "data.augment": ["shift"]},
    {**SGD, "schedule": "cosine", "model.dropout": 0.3},
    {**SGD, "schedule": "cosine", "loss.label_smoothing": 0.1},
    ADAM,
    {**ADAM, "optimizer.lr": 1e-3},
    {**ADAM, "schedule": "cosine"},
    {**ADAM, "schedule": "linear"},
    {**ADAM, "schedule": "wsd"},
    {**ADAM, "data.augment": ["shift"]},
    {**ADAM, "model.norm": "group"},
    {"optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01}, "schedule": "cosine"},
]
CIFAR = {"data.source": "parquet", "data.image_size": 16, "train.epochs": 12}
CIFAR_HEALTHY: list[dict[str, Any]] = [
    {**CIFAR, "schedule": "cosine", "optimizer.lr": 0.05},
    {**CIFAR, "schedule": "step", "optimizer.lr": 0.05},
    {**CIFAR, **ADAM, "schedule": "cosine"},
]
CIFAR_CONDITIONS: dict[str, dict[str, Any]] = {
    "rate_too_low": {**CIFAR, "train.epochs": 6},
    "underfitting": {**CIFAR, "model.dropout": 0.0, "train.epochs": 8},
}


@dataclass
class Judged:
    """A run and its diagnosis."""

    label: str
    overrides: Mapping[str, Any]
    seed: int
    diagnosis: Diagnosis
    accuracy: float
    seconds: float


class Bench:
    """Runs jobs in a temporary folder and keeps decoded data in memory between them."""

    def __init__(self, storage: Path) -> None:
        self.storage, self.count = storage, 0
        self.images: dict[str, Any] = {}

    def run(self, condition: str, overrides: Mapping[str, Any], seed: int) -> Judged:
        """Raises JobError where this version of lehr does not support the job."""
        began, self.count = time.perf_counter(), self.count + 1
        name = f"{condition}-{self.count}"
        changes = {"seed": seed, "name": name, "storage": str(self.storage), **overrides}
        job = load(HERE / "conditions" / f"{condition}.yaml", changes)
        assert isinstance(job, TrainJob)
        opened = OpenedSources(job)
        key = f"{job.data.source} {job.data.path} {job.data.image_size}"
        if key not in self.images:
            self.images[key] = opened.decode()
        plan = Plan.make(job, splits(job, self.images[key]))
        run = RunFolder.create(Folder.at(self.storage).child(name), to_dict(job), Environment.collect(seed=seed))
        try:
            train(plan, run, Group())
        except TrainingError as error:
            run.write_progress(replace(run.progress(), status="failed", message=str(error)))
        curves = Curves.read(run)
        accuracy = float(np.nanmax(curves.epoch_column("validation_accuracy"), initial=0.0))
        return Judged(condition, overrides, seed, diagnose(curves), accuracy, time.perf_counter() - began)


def shuffled_digits(folder: Path) -> Path:
    """The bundled digits with their labels shuffled."""
    source = pq.ParquetFile(Path(lehr.data.__file__).with_name("digits.parquet"))
    table = source.read(columns=["image", "label"])
    labels = np.random.default_rng(0).permutation(table["label"].to_numpy())
    return with_classes(table.set_column(1, "label", pa.array(labels)), source, folder / "shuffled.parquet")


def some_cifar(source: Path, folder: Path, rows: int = 2500) -> Path:
    """The first rows of a CIFAR-10 file."""
    file = pq.ParquetFile(source)
    table = file.read_row_group(0, columns=["image", "label"]).slice(0, rows)
    return with_classes(table, file, folder / "cifar.parquet")


def with_classes(table: pa.Table, source: pq.ParquetFile, path: Path) -> Path:
    """Writes the table with the class names of its source."""
    pq.write_table(table.replace_schema_metadata({b"classes": source.schema_arrow.metadata[b"classes"]}), path)
    return path


def describe(overrides: Mapping[str, Any]) -> str:
    shown = [f"{path}={as_yaml(value)}" for path, value in overrides.items() if path != "data.path"]
    return " ".join(shown) or "unchanged"


def confusion(judged: Iterable[tuple[str, Judged]]) -> list[str]:
    """A table in Markdown: one row per condition, one column per diagnosis that came first."""
    counts: dict[str, Counter[str]] = {}
    for label, each in judged:
        counts.setdefault(label, Counter())[each.diagnosis.first.name] += 1
    order = [*dict.fromkeys(CONDITIONS.values()), "healthy", "nothing_seen", "unclear", "too_little"]
    found = {name for row in counts.values() for name in row}
    columns = [*(name for name in order if name in found), *sorted(found - set(order))]
    lines = ["| trained into | " + " | ".join(name.replace("_", " ") for name in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for label, row in counts.items():
        lines.append(f"| {label} | " + " | ".join(str(row[c] or "·") for c in columns) + " |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How often the diagnosis is right, on real runs.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[61, 62, 63])
    parser.add_argument("--cifar", type=Path, help="a CIFAR-10 Parquet file; without it only digits are used")
    parser.add_argument("--write", action="store_true", help="write diagnosis.md beside this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began, out = time.perf_counter(), io.StringIO()
    with tempfile.TemporaryDirectory() as temporary:
        report(Bench(Path(temporary) / "runs"), Path(temporary), options, out)
    print(f"\n{time.perf_counter() - began:.0f} s in total", file=out)
    print(out.getvalue())
    if options.write:
        (HERE / "diagnosis.md").write_text(out.getvalue())
    return 0


def report(bench: Bench, folder: Path, options: argparse.Namespace, out: io.StringIO) -> None:
    extra = {"at_chance": {"data.source": "parquet", "data.path": str(shuffled_digits(folder))}}
    jobs = [(name, name, extra.get(name, {})) for name in CONDITIONS]
    healthy = [("healthy", each) for each in HEALTHY]
    if options.cifar:
        path = {"data.path": str(some_cifar(options.cifar, folder))}
        jobs += [(f"{name}, CIFAR-10", name, {**each, **path}) for name, each in CIFAR_CONDITIONS.items()]
        healthy += [("healthy, CIFAR-10", {**each, **path}) for each in CIFAR_HEALTHY]

    wrong: list[str] = []
    found: list[tuple[str, Judged]] = []
    repaired: dict[str, list[tuple[float, float]]] = {}
    commands: dict[str, str] = {}
    for label, name, overrides in jobs:
        for seed in options.seeds:
            judged = bench.run(name, overrides, seed)
            found.append((label, judged))
            first = judged.diagnosis.first
            say(f"{label} seed {seed}: {first.name}, {judged.accuracy:.1%}, {judged.seconds:.0f} s")
            if first.name != CONDITIONS[name] and (name, first.name) not in ALSO_RIGHT:
                wrong.append(f"{label}, seed {seed}: {first.name} ({first.evidence})")
            if first.overrides and CONDITIONS[name] not in NO_REMEDY:
                again = bench.run(name, {**overrides, **first.overrides}, seed)
                repaired.setdefault(label, []).append((judged.accuracy, again.accuracy))
                commands[label] = first.command
                say(f"    with {first.command}: {again.accuracy:.1%}")
    right = len(found) - len(wrong)

    alarms: list[str] = []
    refused: list[str] = []
    good = 0
    for number, (label, overrides) in enumerate(healthy):
        seed = options.seeds[number % len(options.seeds)]
        try:
            judged = bench.run("healthy", overrides, seed)
        except JobError as error:
            refused.append(f"{describe(overrides)}: {error}")
            continue
        found.append((label, judged))
        first = judged.diagnosis.first
        say(f"{label} {describe(overrides)}: {first.name}, {judged.accuracy:.1%}, {judged.seconds:.0f} s")
        good += first.name == "healthy"
        if first.name != "healthy":
            alarms.append(f"{label}, {describe(overrides)}, seed {seed}: {first.name} ({first.evidence})")

    total = good + len(alarms)
    ill = len(found) - total
    print("# How often the diagnosis is right\n", file=out)
    print(f"Seeds {', '.join(map(str, options.seeds))}; the thresholds were set on other seeds.\n", file=out)
    print(f"The right diagnosis comes first in {right} of {ill} runs ({right / ill:.0%});", file=out)
    print(f"{len(alarms)} of {total} healthy runs raise a false alarm.\n", file=out)
    print("\n".join(confusion(found)), file=out)
    for title, lines in (
        ("Wrong", wrong),
        ("False alarms", alarms),
        ("Not run, since this version of lehr rejects them", refused),
    ):
        if lines:
            print(f"\n{title}:\n" + "\n".join(f"- {line}" for line in lines), file=out)
    print("\n## How often the suggested override helps\n", file=out)
    print("Best validation accuracy without and with the override, one pair per seed.\n", file=out)
    print("| condition | override (of the last seed) | accuracy % | better |\n|---|---|---|---|", file=out)
    pairs = [pair for each in repaired.values() for pair in each]
    for label, each in repaired.items():
        shown = ", ".join(f"{100 * before:.1f} → {100 * after:.1f}" for before, after in each)
        better = sum(after > before for before, after in each)
        print(f"| {label} | `{commands[label]}` | {shown} | {better} of {len(each)} |", file=out)
    improved = sum(after > before for before, after in pairs)
    print(f"\nBetter in {improved} of {len(pairs)} runs.", file=out)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
