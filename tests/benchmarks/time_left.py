"""The estimate of the time left against the time it was, for ten jobs of different kinds.

    python -m tests.benchmarks.time_left [JOB …] [--out FILE]

Each job runs as a person runs it, in a process of its own and on Ray (with --here without it: one trial after another).
Meanwhile its progress.json is read, as the
screen does. The estimate that counts is the first one after the first whole epoch of any training (of a prediction:
after a tenth); the time it was ends when the run says that it is finished. Printed: both, their ratio, and the share of
all later estimates that were within a third, or within 3 seconds, of the time that was left then; and of the ranges
that were told beside rough estimates, how many held.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lehr.runs import ENDED, Folder, Progress

DIGITS = {"source": "digits", "validation": 0.2}
SMALL = {
    "data": DIGITS,
    "model": {"name": "small_cnn", "width": 16},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "train": {"batch_size": 64},
}


def of(base: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with some keys of its sections replaced."""
    return {**base, **{name: {**base.get(name, {}), **section} for name, section in sections.items()}}


JOBS: dict[str, dict[str, Any]] = {
    "train-small": {"kind": "train", **of(SMALL, train={"epochs": 40})},
    "train-large": {"kind": "train", **of(SMALL, model={"width": 64}, train={"epochs": 12})},
    "train-two-workers": {"kind": "train", **of(SMALL, train={"epochs": 30}), "workers": {"count": 2}},
    "search-random": {
        "kind": "search",
        "base": of(SMALL, train={"epochs": 6}),
        "space": {"optimizer.lr": {"log_uniform": [0.001, 0.3]}, "model.width": [8, 16, 32]},
        "budget": {"trials": 10},
    },
    "search-asha": {
        "kind": "search",
        "base": of(SMALL, train={"epochs": 9}),
        "space": {"optimizer.lr": {"log_uniform": [0.0003, 0.5]}},
        "stopping": {"name": "asha", "first": 1, "factor": 3},
        "budget": {"trials": 16},
    },
    "recipe": {"kind": "recipe", "base": of(SMALL, train={"epochs": 10}), "budget": "60ep"},
    "recipe-minutes": {"kind": "recipe", "base": of(SMALL, train={"epochs": 10}), "budget": "2min"},
    "ensemble": {"kind": "ensemble", "method": "independent", "members": 3, "base": of(SMALL, train={"epochs": 8})},
    "snapshots": {
        "kind": "ensemble",
        "method": "snapshot",
        "cycles": 4,
        "base": of(SMALL, train={"epochs": 20}),
    },
    "transfer": {
        "kind": "transfer",
        "backbone": "run:backbone",
        "strategy": ["features", "finetune", "scratch"],
        "base": {name: each for name, each in of(SMALL, train={"epochs": 12}).items() if name != "model"},
    },
    "predict": {"kind": "predict", "run": "run:backbone", "batch_size": 32},
}
BACKBONE = {"kind": "train", **of(SMALL, model={"width": 32}, train={"epochs": 2})}
"""What the transfer begins with, and what predicts."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of the seconds left, made at a time (seconds since 1970), and its range where one was told."""

    time: float
    left: float
    after_an_epoch: bool
    least: float | None = None
    most: float | None = None

    def covers(self, was: float) -> bool | None:
        """Whether the range that was told holds; None where none was."""
        return None if self.least is None or self.most is None else self.least <= was <= self.most


def run(name: str, job: Mapping[str, Any], folder: Path, here: bool = False) -> tuple[list[Estimate], float]:
    """Runs a job; returns its estimates, and when it said that it was finished.

    Raises:
        RuntimeError: it failed.
    """
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({**job, "name": name, "storage": str(folder / "runs")}))  # JSON is YAML
    log = folder / f"{name}.log"
    found: list[Estimate] = []
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lehr", "run", str(file), *(["--debug"] if here else [])],
            stdout=output,
            stderr=output,
            cwd=folder,
        )
        shown, ended = Folder.at(folder / "runs" / name), 0.0
        last: float | None = None
        while process.poll() is None:
            progress = Progress.read(shown)
            if progress.updated != last and progress.status not in ENDED and progress.seconds_left is not None:
                last = progress.updated
                between = progress.seconds_left_least, progress.seconds_left_most
                found.append(Estimate(time.time(), progress.seconds_left, has_an_epoch(progress), *between))
            if progress.status in ENDED and not ended:
                ended = time.time()
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{log.read_text()[-2000:]}")
    return found, ended or time.time()


def has_an_epoch(progress: Progress) -> bool:
    """Whether a whole epoch of a training is done or, where the job trains none, a tenth of it."""
    if progress.training:
        return progress.training.epochs_done > 0
    overview = progress.overview
    if overview and overview.rows is not None:
        return overview.done >= 0.1
    return True  # made of trials: it estimates nothing before an epoch


def judged(name: str, found: list[Estimate], ended: float) -> dict[str, Any]:
    """The first estimate that counts against what it was, and how many of the later ones were good."""
    after = [each for each in found if each.after_an_epoch]
    if not after:
        return {"job": name, "estimate": None}
    first = after[0]
    good = [is_good(each.left, ended - each.time) for each in after]
    told = [held for each in after if (held := each.covers(ended - each.time)) is not None]
    ranged = first.least is not None and first.most is not None
    return {
        "job": name,
        "estimate": round(first.left, 1),
        "was": round(ended - first.time, 1),
        "ratio": round(first.left / max(0.1, ended - first.time), 2),
        "within_a_third": is_good(first.left, ended - first.time),
        "range": [round(first.least or 0, 1), round(first.most or 0, 1)] if ranged else None,
        "range_holds": first.covers(ended - first.time),
        "later_within": round(sum(good) / len(good), 2),
        "estimates": len(after),
        "ranges_that_hold": f"{sum(told)} of {len(told)}",
    }


def is_good(left: float, was: float) -> bool:
    """Within a third of what it was, or 3 seconds: half a screen of a progress bar nobody minds."""
    return abs(left - was) <= max(was / 3, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(JOBS))
    parser.add_argument("--here", action="store_true", help="without Ray")
    parser.add_argument("--out", type=Path, help="a file to which a line of JSON is appended for each job")
    asked = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if {"transfer", "predict"} & set(asked.jobs):
            run("backbone", BACKBONE, folder, asked.here)
        for name in asked.jobs:
            told = judged(name, *run(name, job_of(name, folder), folder, asked.here))
            print(json.dumps(told), flush=True)
            if asked.out:
                with asked.out.open("a") as file:
                    file.write(json.dumps(told) + "\n")


def job_of(name: str, folder: Path) -> dict[str, Any]:
    """A job of `JOBS`. The prediction is of so many images that it takes a while."""
    job = JOBS[name]
    if name != "predict":
        return job
    photographs = folder / "photographs" / "one"
    photographs.mkdir(parents=True)
    for number in range(4000):
        pixels = np.random.default_rng(number).integers(0, 255, (200, 200), np.uint8)
        Image.fromarray(pixels).save(photographs / f"{number:04}.png")
    return {**job, "data": {"source": "files", "path": str(photographs.parent)}}


if __name__ == "__main__":
    main()
