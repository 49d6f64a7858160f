"""A single network, snapshots, independent networks and averaged weights, at the same training budget.

3,000 training images of CIFAR-10 at 16 pixels, small_cnn of width 16, 12 epochs in total per method, three seeds.
Weights are chosen on 1,000 validation images; accuracy is measured on 3,000 test images. Each cell is the accuracy with
one seed; the jobs are those that a user would write, run one after the other in this process.

    python -m tests.benchmarks.ensembles TRAIN.parquet TEST.parquet [seeds]

Cycles this short are expected to hurt, and independent networks with a quarter of the budget even more: the published
gains of snapshots come from cycles of 40 epochs or more.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import lehr
from lehr.job import EnsembleJob, from_dict
from lehr.kinds.ensemble import evaluate_run

EPOCHS, TRAIN, VALIDATION, TEST = 12, 3000, 1000, 3000


def subset(path: str, rows: int, target: Path) -> str:
    """Copies the first rows of a Parquet file to a file of their own, so that no run decodes more than it uses."""
    file = pq.ParquetFile(path)
    table = next(file.iter_batches(batch_size=rows))
    with pq.ParquetWriter(target, file.schema_arrow) as writer:
        writer.write_batch(table, row_group_size=1000)
    return str(target)


def base(folder: Path, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "data": {
            "source": "parquet",
            "path": str(folder / "train.parquet"),
            "test": str(folder / "test.parquet"),
            "validation": VALIDATION / (TRAIN + VALIDATION),
            "image_size": 16,
            "augment": ["flip", "crop"],
        },
        "model": {"name": "small_cnn", "width": 16, "norm": "batch"},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "train": {"epochs": EPOCHS, "batch_size": 128, "evaluated_training_rows": 0},
    }


def ensemble(folder: Path, seed: int, name: str, **job: Any) -> tuple[dict[str, float], str]:
    """Accuracies by name, and the verdict of the job."""
    said = {"kind": "ensemble", "name": f"{name}-{seed}", "storage": str(folder / "runs"), "base": base(folder, seed)}
    changes = job.pop("base", {})
    loaded = from_dict({**said, **job}, {f"base.{path}": value for path, value in changes.items()})
    run = lehr.run(loaded, debug=True)
    assert isinstance(loaded, EnsembleJob)
    found = evaluate_run(run.folder, loaded)
    accuracy = {"ensemble": 1 - found.ensemble.error, "all": 1 - found.cumulative[-1]}
    accuracy["last"] = 1 - found.members[-1].error
    if found.baseline:
        accuracy["single"] = 1 - found.baseline.error
    accuracy |= {name: 1 - model.error for name, model in zip(found.names, found.members, strict=True)}
    told = run.folder.progress().overview
    assert told is not None
    return accuracy, " ".join(told.verdict)


def one_seed(folder: Path, seed: int) -> tuple[dict[str, float], list[str]]:
    four, said_four = ensemble(folder, seed, "four-cycles", method="snapshot", cycles=4)
    two, said_two = ensemble(folder, seed, "two-cycles", method="snapshot", cycles=2, compare=False)
    quarter = {"train.epochs": EPOCHS // 4, "schedule": "cosine"}
    alone, said_alone = ensemble(
        folder, seed, "independent", method="independent", members=4, compare=False, base=quarter
    )
    average, said_average = ensemble(
        folder,
        seed,
        "average",
        method="average",
        averages=[{"kind": "ema", "decay": 0.99}],
        base={"schedule": "cosine"},
    )
    table = {
        f"one network, one cosine schedule over {EPOCHS} epochs": four["single"],
        f"last snapshot of 4 cycles × {EPOCHS // 4} epochs": four["last"],
        "snapshots of 4 cycles, number chosen on validation": four["ensemble"],
        "snapshots of 4 cycles, all": four["all"],
        f"last snapshot of 2 cycles × {EPOCHS // 2} epochs": two["last"],
        "snapshots of 2 cycles, number chosen on validation": two["ensemble"],
        "snapshots of 2 cycles, all": two["all"],
        f"4 independent networks × {EPOCHS // 4} epochs, all": alone["all"],
        "raw weights of one cosine schedule": average["raw"],
        "exponential average of these (decay 0.99)": average["ema"],
    }
    return table, [said_four, said_two, said_alone, said_average]


def main(train: str, test: str, seeds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subset(train, TRAIN + VALIDATION, folder / "train.parquet")
        subset(test, TEST, folder / "test.parquet")
        tables, verdicts = zip(*(one_seed(folder, seed) for seed in range(seeds)), strict=True)
    print(
        f"\nTest accuracy in %, {TRAIN:,} CIFAR-10 images, {EPOCHS} epochs each\n{'':52}" + "  seed" * seeds + "   mean"
    )
    for name in tables[0]:
        values = [100 * table[name] for table in tables]
        print(f"{name:52}" + "".join(f"{value:6.1f}" for value in values) + f"{statistics.mean(values):7.2f}")
    print("\nVerdicts of the jobs with the first seed:")
    for sentence in verdicts[0]:
        print(f"- {sentence}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
