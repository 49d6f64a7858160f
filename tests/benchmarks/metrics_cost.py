"""The cost of exporting metrics: one run, with the exporter alternately on and off.

The worst case on a small machine: two workers on all its cores and tiny steps, so that the driver and Ray's agents take
every CPU second from them. A single run, so that nothing else differs: the exporter is switched on or off every few
seconds, longer than Ray takes to forward metrics.

It measures two things. Examples per second, as the ratio with / without for each pair of neighbouring stretches: this
is what matters, but on a busy machine its spread is far above one percent. And the CPU time of everything except the
workers (the driver, Ray's daemons and agents), which other load hardly affects: the increase, as a share of all cores,
is the most that training can lose. What the workers themselves add for monitoring (a few numbers, and one question to
DDP per synchronisation: 0.1 ms twice a second) is always on.

    python -m tests.benchmarks.metrics_cost [pairs]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil

from lehr.machine import cores
from lehr.monitoring.exporter import Exporter
from lehr.runs import Folder, RunFolder, TrainingProgress

STRETCH_SECONDS = 12.0
BATCH = 64
JOB: dict[str, Any] = {
    "kind": "train",
    "name": "cost",
    "data": {"source": "digits", "limit": 20 * BATCH, "validation": 0.2},  # whole batches
    "model": {"name": "small_cnn", "width": 16},
    "optimizer": {"lr": 0.01},
    "schedule": "constant",
    "train": {"epochs": 100_000, "batch_size": BATCH, "evaluated_training_rows": 0, "checkpoint": {"every": "1000ep"}},
    "workers": {"count": 2},
}


@dataclass(frozen=True)
class Stretch:
    """A few seconds of training: examples per second, and CPU seconds per second of all but the workers."""

    speed: float
    others: float


def main(pairs: int) -> None:
    from lehr import run
    from lehr.errors import LehrError

    on, durations = threading.Event(), []
    poll = Exporter.poll

    def switched(self: Exporter) -> None:
        if on.is_set():
            started = time.perf_counter()
            poll(self)
            durations.append(time.perf_counter() - started)

    Exporter.poll = switched  # type: ignore[method-assign]
    found: list[tuple[Stretch, Stretch]] = []
    screen = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # an epoch takes a fraction of a second
    with tempfile.TemporaryDirectory() as folder:
        watcher = threading.Thread(target=measure, args=(folder, on, pairs, found), daemon=True)
        watcher.start()
        try:
            run({**JOB, "storage": folder})
        except LehrError as stopped:
            if not found:
                raise SystemExit(f"nothing was measured: {stopped}") from None
        watcher.join()
    os.dup2(screen, 1)
    for number, (with_metrics, without) in enumerate(found, 1):
        print(
            f"  pair {number}: {with_metrics.speed:,.0f} and {without.speed:,.0f} examples/s, "
            f"{with_metrics.others:.3f} and {without.others:.3f} cores outside the workers"
        )
    summary([a.speed / b.speed for a, b in found], "examples/s, with / without", "about 1")
    shares = [(a.others - b.others) / cores() for a, b in found]
    summary(shares, f"additional CPU time, as a share of {cores()} cores", "at most 0.01")
    print(f"reading the run takes the driver {statistics.median(durations) * 1000:.1f} ms, every 2 s")


def summary(values: list[float], what: str, expected: str) -> None:
    middle = statistics.median(values)
    error = 1.2533 * statistics.stdev(values) / len(values) ** 0.5  # of a median, for a normal spread
    spread = f"{min(values):.4f} to {max(values):.4f}"
    print(f"{what}: {middle:.4f} ± {error:.4f} (median of {len(values)}, {spread}); expected {expected}")


def measure(folder: str, on: threading.Event, pairs: int, found: list[tuple[Stretch, Stretch]]) -> None:
    """Waits until training is warm, switches the exporter on and off, and finally asks the run to stop."""
    run = RunFolder(Folder.at(f"{folder}/cost"))

    def reached() -> tuple[int, int, float]:
        """Epochs done, optimizer steps, and when that was written."""
        progress = run.progress()
        training = progress.training or TrainingProgress()
        return training.epochs_done, training.step, progress.updated or 0.0

    while reached()[0] < 20:
        time.sleep(0.5)

    def stretch(exporting: bool) -> Stretch:
        on.set() if exporting else on.clear()
        (_, first, since), used, began = reached(), others(), time.perf_counter()
        time.sleep(STRETCH_SECONDS)
        (_, last, until), seconds = reached(), time.perf_counter() - began
        speed = (last - first) * BATCH / (until - since)
        return Stretch(speed, (others() - used) / seconds)

    for pair in range(pairs):
        if pair % 2:
            without = stretch(False)
            found.append((stretch(True), without))
        else:
            found.append((stretch(True), stretch(False)))
    run.request_stop("measured")


def others() -> float:
    """CPU seconds so far of this process and everything it started, except the workers that train."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            if "RayTrainWorker" not in " ".join(process.cmdline()):
                times = process.cpu_times()
                total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
