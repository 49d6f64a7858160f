"""Which transfer strategy is best, and does `strategy: auto` find it? On CIFAR-10: six known classes, four new ones.

    python -m tests.benchmarks.transfer cifar10-train.parquet cifar10-test.parquet [--seeds 0 1 2] [--digits]

A small network is pretrained on 15,000 images of six classes. The other four classes are the new data: n images of each
for training, n others for validation, and 2,000 test images for the score. Each cell is one `kind: transfer` job with
`strategy: auto`; its trials are the rows of the table. auto sees validation accuracy only. `--digits` adds the bundled
digits, which are nothing like photographs. Everything runs as with `lehr run --debug`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lehr
from lehr.transfer.decision import TransferDecision

KNOWN = ["airplane", "automobile", "bird", "cat", "deer", "dog"]
NEW = ["frog", "horse", "ship", "truck"]
SIZES = {10: 40, 50: 30, 250: 15}  # images per class, and epochs for them
OPTIMIZER = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(options.keep or Path(temporary), options.train, options.test)
        pretrained = workspace.pretrain()
        took = time.perf_counter() - began
        print(f"pretrained on six classes: {pretrained:.1%} validation accuracy, {took:.0f} s\n", flush=True)
        table(workspace, "cifar", NEW, options.sizes, options.seeds)
        if options.digits:
            print()
            table(workspace, "digits", None, [10, 50], options.seeds)
    print(f"\ntotal: {time.perf_counter() - began:.0f} s")


class Workspace:
    """The folder that holds the runs and the small data files."""

    def __init__(self, folder: Path, train: Path, test: Path) -> None:
        self.folder, self.train, self.test = folder.absolute(), train.absolute(), test.absolute()
        self.rows = {split: pq.read_table(file) for split, file in (("train", self.train), ("test", self.test))}
        self.classes = self.rows["train"].schema.metadata[b"classes"].decode().split(",")

    def pretrain(self) -> float:
        job = {
            "kind": "train", "name": "six", "storage": str(self.folder),
            "data": {"source": "parquet", "path": str(self.train), "classes": KNOWN, "validation": 0.05,
                     "limit": 15_000, "augment": ["flip", "crop"]},
            "model": {"name": "small_cnn", "width": 24, "norm": "batch"}, "optimizer": {**OPTIMIZER, "lr": 0.1},
            "schedule": {"name": "cosine", "warmup": "1ep"},
            "train": {"epochs": 6, "precision": "bf16", "evaluated_training_rows": 0},
        }  # fmt: skip
        return float(quietly(job).best["value"])

    def transfer(self, data: str, classes: list[str] | None, count: int, seed: int) -> lehr.Run:
        section = self.cifar(count, seed) if data == "cifar" else digits(count, seed)
        job = {
            "kind": "transfer", "name": f"{data}-{count}-{seed}", "storage": str(self.folder), "backbone": "run:six",
            "base": {
                "seed": seed, "data": section, "optimizer": OPTIMIZER, "schedule": {"name": "cosine", "warmup": "1ep"},
                "train": {
                    "epochs": SIZES[count], "batch_size": 16 if count == 10 else 32, "precision": "bf16",
                    "evaluated_training_rows": 0,
                },
            },
        }  # fmt: skip
        return quietly(job)

    def cifar(self, count: int, seed: int) -> dict[str, Any]:
        """n images of each new class for training, n others for validation, and 500 test images for the score."""
        random, files = np.random.default_rng([count, seed]), {}
        labels = {split: rows["label"].to_numpy() for split, rows in self.rows.items()}
        chosen: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
        for name in NEW:
            of_class = random.permutation(np.flatnonzero(labels["train"] == self.classes.index(name)))
            chosen["train"].append(of_class[:count])
            chosen["validation"].append(of_class[count : 2 * count])
            chosen["test"].append(np.flatnonzero(labels["test"] == self.classes.index(name))[:500])
        for split, rows in chosen.items():
            source = self.rows["test" if split == "test" else "train"]
            files[split] = str(self.folder / f"cifar-{count}-{seed}-{split}.parquet")
            pq.write_table(source.take(pa.array(np.sort(np.concatenate(rows)))), files[split])
        return {
            "source": "parquet", "path": files["train"], "validation": files["validation"], "test": files["test"],
            "classes": NEW, "augment": ["flip", "crop"],
        }  # fmt: skip


def digits(count: int, seed: int) -> dict[str, Any]:
    """n images of each digit for training; a third of all digits for validation, which gives the score."""
    return {"source": "digits", "per_class": count, "validation": 0.33, "augment": ["shift"]}


def quietly(job: dict[str, Any]) -> lehr.Run:
    with contextlib.redirect_stdout(io.StringIO()):
        return lehr.run(job, debug=True)


def table(
    workspace: Workspace, data: str, classes: list[str] | None, sizes: Sequence[int], seeds: Sequence[int]
) -> None:
    """Prints a line for each number of images and strategy: the mean over the seeds, with the range."""
    split = "test" if data == "cifar" else "validation"
    print(f"{data}: accuracy in percent on {split} images, mean (lowest – highest)")
    print(f"{'images per class':18}{'strategy':10}{'accuracy':>22}{'seconds':>9}   choices, gain from pretraining")
    for count in sizes:
        found: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}
        notes = []
        for seed in seeds:
            run = workspace.transfer(data, classes, count, seed)
            decision = TransferDecision.read(run.record.folder)
            assert decision is not None
            assert decision.chosen is not None
            assert decision.similarity is not None
            for child in run.folder.children("trials"):
                outcome = child.outcome()
                assert outcome
                accuracy = outcome.metrics["test_accuracy"] if data == "cifar" else outcome.best.value
                found.setdefault(child.name, []).append(100 * (accuracy or 0.0))
                seconds.setdefault(child.name, []).append(child.progress().seconds["total"])
            found.setdefault("auto", []).append(found[decision.chosen][-1])
            notes.append(f"{decision.chosen} {100 * decision.similarity.gain:+.1f}")
        for strategy in ("features", "finetune", "scratch", "auto"):
            if len(values := found.get(strategy, [])) == len(seeds):
                spread = f"{statistics.mean(values):.1f} ({min(values):.1f} – {max(values):.1f})"
                took = f"{statistics.mean(seconds[strategy]):.1f}" if strategy in seconds else ""
                chosen = ", ".join(notes) if strategy == "auto" else ""
                print(f"{count:<18}{strategy:10}{spread:>22}{took:>9}   {chosen}")
        best = max(statistics.mean(v) for name, v in found.items() if name != "auto" and len(v) == len(seeds))
        auto = statistics.mean(found["auto"])
        verdict = "within" if best - auto <= 1 else "NOT within"
        print(f"{'':18}auto is {best - auto:+.1f} points below the best strategy: {verdict} 1 point\n", flush=True)


if __name__ == "__main__":
    main()
