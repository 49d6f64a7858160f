"""Memory of the driver while a user's Ray Dataset is opened, which is more than memory should hold.

A dataset of pixels (64 × 64 × 3) is made by Ray; `LEHR_MOST_HELD_BYTES` is 64 MB. Printed for each number of rows: the
bytes of the dataset, the most memory of its own and of Ray's shared memory that the driver had beyond what it began
with, how long the pass took, and how much was written. What is held stays about the same whatever the number of rows.

    python -m tests.benchmarks.dataset_memory [ROWS…]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from lehr.data.ray_data import dataset_source
from lehr.data.sources.written import MOST_HELD, in_storage
from lehr.errors import JobError

SIDE, HELD = 64, 64_000_000


def made(rows: int) -> Any:
    def images(batch: Any) -> Any:
        of = np.random.default_rng(int(batch["id"][0]))
        pixels = of.integers(0, 256, (len(batch["id"]), SIDE, SIDE, 3), np.uint8)
        return {"image": pixels, "label": batch["id"] % 10}

    return ray.data.range(rows, override_num_blocks=max(4, rows // 1000)).map_batches(images, batch_size=500)


def memory() -> tuple[int, int]:
    """Bytes of this process's own memory, and of the shared memory that it has mapped."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    own, shared = (1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
    return own, shared


def measured(rows: int, storage: str) -> str:
    most, done = [0, 0], threading.Event()
    before = memory()

    def watch() -> None:
        while not done.wait(0.02):
            for at, (now, then) in enumerate(zip(memory(), before, strict=True)):
                most[at] = max(most[at], now - then)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    with in_storage(storage):
        source = dataset_source(made(rows), "made", lambda field, what: JobError(what, field=field))
    took = time.monotonic() - began
    done.set()
    watching.join()
    written = sum(file.stat().st_size for file in Path(storage).rglob("*.parquet"))
    assert source.rows == rows
    return (
        f"{rows:>9,} rows, {rows * SIDE * SIDE * 3 / 1e6:7,.0f} MB: own memory +{most[0] / 1e6:,.0f} MB, shared "
        f"+{most[1] / 1e6:,.0f} MB; {took:.1f} s; {written / 1e6:,.0f} MB written"
    )


def main(*rows: str) -> None:
    os.environ[MOST_HELD] = str(HELD)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=300_000_000)
    for number in (2_000, *map(int, rows or ("10000", "20000", "40000"))):  # the first lets Ray start its processes
        with tempfile.TemporaryDirectory() as storage:
            print(measured(number, storage), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
