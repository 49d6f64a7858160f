"""What five folds buy where images are few: how far a validation accuracy is from that on rows that were never used.

    python -m tests.benchmarks.folds [SEEDS] [SIZES …]

For each seed, 10 or 30 digits of a class are drawn; all others are test rows. One training holds out a fifth of the
few, and five folds measure all of them. Each estimate is held against the accuracy of the same networks on the test
rows, about 1,500, which is the truth to within 1 %. Prints a line for each seed, then error, spread and cost.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import lehr
import lehr.data
from lehr.folds.results import FoldsResult

EPOCHS = 20
JOB: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "cosine", "warmup": "2ep"},
    "train": {"epochs": EPOCHS, "batch_size": 16, "evaluated_training_rows": 0, "checkpoint": {"keep": 1}},
}


def few_digits(folder: Path, of_class: int, seed: int) -> str:
    """A data set whose training rows are `of_class` digits of each class, and whose test rows are all others."""
    table = pq.read_table(Path(lehr.data.__file__).parent / "digits.parquet")
    labels = table["label"].to_numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == label][:of_class] for label in range(10)])
    for name, rows in (("train", chosen), ("test", np.setdiff1d(order, chosen))):
        (folder / name).mkdir(parents=True)
        pq.write_table(table.take(np.sort(rows)), folder / name / "part.parquet")
    return str(folder)


def measure(of_class: int, seed: int) -> tuple[float, float, float, float, int, int]:
    """Validation and test accuracy of one split, then of five folds; and the epochs that each took."""
    with tempfile.TemporaryDirectory() as place, redirect_stdout(sys.stderr):
        data = {"source": "parquet", "path": few_digits(Path(place, "data"), of_class, seed)}
        job = {**JOB, "data": data, "seed": seed, "storage": place}
        one = lehr.run({**job, "name": "one"}, debug=True)
        ended = one.record.outcome()
        assert ended is not None
        assert ended.best.value is not None
        test = ended.metrics["test_accuracy"]
        assert test is not None
        folds = lehr.run({**job, "name": "folds", "folds": 5}, debug=True)
        found = FoldsResult.read(folds.record.folder)
        tests = [float(fold.metrics["test_accuracy"] or 0) for fold in found.folds]
        return ended.best.value, test, found.mean, float(np.mean(tests)), EPOCHS, found.epochs


def main(seeds: int, sizes: Sequence[int]) -> None:
    torch.set_num_threads(1)
    for of_class in sizes:
        rows = []
        for seed in range(seeds):
            one, test, mean, tests, *spent = measure(of_class, seed)
            rows.append((one, test, mean, tests))
            said = f"one split {one:.1%}, on test rows {test:.1%}; folds {mean:.1%}, on test rows {tests:.1%}"
            print(f"{of_class} of a class, seed {seed}: {said}; epochs {spent[0]} and {spent[1]}", flush=True)
        found = np.array(rows)
        for name, estimate, truth in (("one split", 0, 1), ("five folds", 2, 3)):
            off = found[:, estimate] - found[:, truth]
            told = f"off by {np.sqrt((off**2).mean()):.1%} (root mean square), mean {off.mean():+.1%}"
            spread = found[:, estimate].std(ddof=1)
            print(f"{of_class} of a class, {name}: {told}, spread of the estimate {spread:.1%}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, [int(size) for size in sys.argv[2:]] or [10, 30])
