"""What exporting metrics costs training: examples per second of one run, with the exporter on and off in turn.

The worst case on a small machine: two workers on all its cores and tiny steps, so that whatever the driver does is
taken from them. One run, so that nothing else differs: every few seconds the exporter is switched on or off, and each
pair of neighbouring stretches gives one ratio. What the workers' journal adds for monitoring (a few figures and one
question to DDP per pulse, twice a second) is on all the time.

    python -m tests.benchmarks.metrics_cost [pairs]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from typing import Any

from lehr.monitoring.exporter import Exporter
from lehr.runs import Folder, RunFolder

STRETCH_SECONDS = 8.0
BATCH = 64
JOB: dict[str, Any] = {
    "kind": "train",
    "name": "cost",
    "data": {"source": "digits", "limit": 20 * BATCH, "validation": 0.2},  # whole batches
    "model": {"name": "small_cnn", "width": 16},
    "optimizer": {"lr": 0.01},
    "schedule": "constant",
    "train": {"epochs": 100_000, "batch_size": BATCH, "clean_subset": 0, "checkpoint": {"every": "1000ep"}},
    "workers": {"count": 2},
}


def main(pairs: int) -> None:
    from lehr import run
    from lehr.errors import LehrError

    on, looks = threading.Event(), []
    look = Exporter._look

    def switched(self: Exporter) -> None:
        if on.is_set():
            started = time.perf_counter()
            look(self)
            looks.append(time.perf_counter() - started)

    Exporter._look = switched  # type: ignore[method-assign]
    found: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        watcher = threading.Thread(target=measure, args=(folder, on, pairs, found), daemon=True)
        watcher.start()
        try:
            run({**JOB, "storage": folder})
        except LehrError as stopped:
            print(f"  {stopped}".splitlines()[0])
        watcher.join()
    ratios = [with_metrics / without for with_metrics, without in found]
    for name, values in (("with metrics", [a for a, _ in found]), ("without", [b for _, b in found])):
        print(f"{name:16}{statistics.median(values):10,.0f} examples/s, {min(values):,.0f} to {max(values):,.0f}")
    middle = statistics.median(ratios)
    error = 1.2533 * statistics.stdev(ratios) / len(ratios) ** 0.5  # of a median, for a normal spread
    print(f"a look at the run takes the driver {statistics.median(looks) * 1000:.1f} ms, every 2 s")
    print(
        f"ratio with / without, median of {len(ratios)} pairs: {middle:.4f} ± {error:.4f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}); expected at least 0.99"
    )


def measure(folder: str, on: threading.Event, pairs: int, found: list[tuple[float, float]]) -> None:
    """Waits for training to be warm, switches the exporter on and off, and asks the run to stop at the end."""
    place = RunFolder(Folder.at(f"{folder}/cost"))
    while place.progress().get("epochs_done", 0) < 20:
        time.sleep(0.5)

    def speed(exporting: bool) -> float:
        """Examples per second over one stretch, by the workers' own clock."""
        on.set() if exporting else on.clear()
        before = place.progress()
        time.sleep(STRETCH_SECONDS)
        after = place.progress()
        return (after["step"] - before["step"]) * BATCH / (after["updated"] - before["updated"])

    for pair in range(pairs):
        if pair % 2:
            without = speed(False)
            found.append((speed(True), without))
        else:
            found.append((speed(True), speed(False)))
        print(f"  pair {pair + 1}: {found[-1][0]:,.0f} with, {found[-1][1]:,.0f} without", flush=True)
    place.request_stop("measured")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
