"""Share of a run's wall time in which the network does not compute, from the times that the run records.

    python -m tests.benchmarks.outside_compute [--epochs 20] [--rows 50000] [data.parquet]

`jobs/cifar10.yaml` on CIFAR-10, as a command, from its start to its exit. The network computes in `compute` (steps) and
`evaluation`. Everything else is outside compute: starting Ray, reading and decoding, waiting for batches, records,
checkpoints, the model, and the report at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lehr import Run
from tests.benchmarks import cifar

JOB = Path(__file__).parents[2] / "jobs/cifar10.yaml"


def measure(data: Path, folder: Path, epochs: int, rows: int, debug: bool = False) -> dict[str, float]:
    """Seconds by purpose, including `wall`."""
    changes = [f"data.path={data}", f"train.epochs={epochs}", f"data.limit={rows}", f"storage={folder}", "name=share"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "lehr", "run", str(JOB), *changes, *(["--debug"] if debug else [])]
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - started
    run = Run(folder / "share")
    progress = run.folder.progress()
    assert progress.training
    epochs = progress.training.epochs
    print(f"{epochs} epochs of at most {rows:,} rows, best validation accuracy {run.best['value']:.2%}")
    return {"wall": wall, **progress.seconds}


def report(seconds: dict[str, float]) -> None:
    wall, total = seconds["wall"], seconds["total"] + seconds["startup"]
    parts = {name: value for name, value in seconds.items() if name not in ("wall", "total")}
    parts["other training"] = total - sum(parts.values())
    parts["end of the command"] = wall - total
    for name, value in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{name:26}{value:9.1f} s {100 * value / wall:6.1f} %")
    outside = wall - seconds["compute"] - seconds["evaluation"]
    print(f"outside compute: {100 * outside / wall:.2f} % of {wall:.0f} s; expected at most 5 (lower is better)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(options.data or cifar.needed(), Path(folder), options.epochs, options.rows)
    report(seconds)


if __name__ == "__main__":
    main()
