"""What early stopping and random search gain: `python -m tests.benchmarks.search_methods --cifar FILE.parquet`

1. The same random search with and without ASHA on 3,000 images of CIFAR-10 at 16 pixels: the epochs and the best
   accuracy of both, and of a search with ASHA that trains as many epochs as the one without.
2. Random search against a grid at equal budget over several seeds, on the digits, as in Bergstra and Bengio, "Random
   Search for Hyper-Parameter Optimization", 2012: one field matters (the learning rate), the other hardly does (weight
   decay).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.alternating import silence

TRIALS = 9
CIFAR: dict[str, Any] = {
    "kind": "search",
    "base": {
        "data": {"source": "parquet", "validation": 0.1, "limit": 3000, "image_size": 16, "augment": ["flip"]},
        "model": {"name": "small_cnn", "width": 16, "norm": "batch"},
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "cosine", "warmup": "1ep"},
        "train": {"epochs": 9, "batch_size": 64, "evaluated_training_rows": 0, "precision": "bf16"},
        "workers": {"cpus": 1},
    },
    "space": {
        "optimizer.lr": {"log_uniform": [1e-3, 1]},
        "optimizer.weight_decay": {"log_uniform": [1e-5, 1e-2]},
    },
    "budget": {"trials": TRIALS},
}
DIGITS: dict[str, Any] = {
    "kind": "search",
    "base": {
        "data": {"source": "digits", "limit": 600},
        "model": {"name": "small_cnn", "width": 8},
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "train": {"epochs": 4, "batch_size": 64, "evaluated_training_rows": 0},
    },
    "stopping": "none",
}
GRID = {"optimizer.lr": [1e-3, 3.16e-2, 1.0], "optimizer.weight_decay": [1e-5, 3.16e-4, 1e-2]}
RANGES = {
    "optimizer.lr": {"log_uniform": [1e-3, 1]},
    "optimizer.weight_decay": {"log_uniform": [1e-5, 1e-2]},
}
SEEDS = range(5)


def search(job: dict[str, Any], folder: str, debug: bool = False, **overrides: Any) -> tuple[float, int, float]:
    """(best value, epochs, seconds) of a search."""
    import lehr
    from lehr.job import from_dict

    began = time.perf_counter()
    changes = {path.replace("__", "."): value for path, value in overrides.items()}
    with silence():
        run = lehr.run(from_dict(job, {**changes, "storage": folder}), debug=debug)
    outcome, overview = run.folder.outcome(), run.folder.progress().overview
    assert outcome
    assert overview
    assert outcome.best.value is not None
    assert overview.epochs_spent is not None
    return outcome.best.value, overview.epochs_spent, time.perf_counter() - began


def main() -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    parser = argparse.ArgumentParser()
    parser.add_argument("--cifar", type=Path, help="a Parquet file of CIFAR-10's training images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(f"Random search against a grid, {len(GRID['optimizer.lr']) ** 2} trials each, best validation accuracy:")
        print("seed   grid 3 x 3   random   quasi-random", flush=True)
        rows = []
        for seed in SEEDS:
            same = {"seed": seed, "base.seed": seed, "name": "search"}
            values = [
                search(DIGITS | {"space": GRID, "method": "grid"}, f"{place}/grid-{seed}", debug=True, **same)[0],
                search(DIGITS | {"space": RANGES, "budget": 9}, f"{place}/random-{seed}", debug=True, **same)[0],
                search(
                    DIGITS | {"space": RANGES, "budget": 9, "method": "quasi_random"},
                    f"{place}/quasi-{seed}", debug=True, **same,
                )[0],
            ]  # fmt: skip
            rows.append(values)
            print(f"{seed:>4}   {values[0]:>10.2%}   {values[1]:>6.2%}   {values[2]:>12.2%}", flush=True)
        means = [mean(column) for column in zip(*rows, strict=True)]
        print(f"mean   {means[0]:>10.2%}   {means[1]:>6.2%}   {means[2]:>12.2%}", flush=True)
        if arguments.cifar:
            with_and_without_asha(str(arguments.cifar.resolve()), place)


def with_and_without_asha(file: str, place: str) -> None:
    print(f"\n{TRIALS} trials on 3,000 images of CIFAR-10 at 16 pixels:")
    print(f"seed   {'':>28}best   epochs   seconds", flush=True)
    gains = []
    for seed in range(1, 4):  # seed 0 served to choose the first rung
        same: dict[str, Any] = {"base__data__path": file, "seed": seed, "base__seed": seed}
        same["debug"] = True  # one slot, so that the result is reproducible
        full = search(CIFAR, f"{place}/full-{seed}", stopping="none", **same)
        asha = search(CIFAR, f"{place}/asha-{seed}", stopping="asha", **same)
        more = {"trials": 100, "epochs": full[1]}
        long = search(CIFAR, f"{place}/long-{seed}", stopping="asha", budget=more, **same)
        for name, found in (("without ASHA", full), ("with ASHA", asha), ("with ASHA, as many epochs", long)):
            print(f"{seed:>4}   {name:>26}  {found[0]:.2%}   {found[1]:>6}   {found[2]:>7.0f}", flush=True)
        gains.append((asha[1] / full[1], asha[0] - full[0], long[0] - full[0]))
    share, same_trials, same_epochs = (mean(column) for column in zip(*gains, strict=True))
    print(
        f"mean: with the same trials, ASHA took {share:.0%} of the epochs and gained {100 * same_trials:+.1f} points;"
    )
    print(f"with as many epochs, it gained {100 * same_epochs:+.1f} points")


if __name__ == "__main__":
    main()
