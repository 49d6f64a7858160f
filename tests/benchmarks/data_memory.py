"""Memory of the driver and of a worker that stream 10⁴ to 10⁷ rows.

The rows are computed, labels and pixels, so that what is measured is what the rows of a data set cost beside them. Each
case is a whole process, which opens the source, splits it, makes the plan and takes steps of a tiny network; the
"worker" opens what the driver put into a file that both map, as Ray's object store is mapped. Resident memory at the
end and at most, with all that is shared (VmRSS, VmHWM).

The windows of decoded rows are a buffer of fixed size, which a small set does not fill. So that they do not hide what
rows cost, they have 1 MiB here; --windows measures with those that trainings have, of 256 MiB for all workers together.

    python -m tests.benchmarks.data_memory [--windows]
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
PART, SIDE, CLASSES, STEPS = 1000, 16, 100, 100
WITHIN = 1.1


@dataclass(frozen=True)
class ComputedPart:
    """Rows that are computed."""

    first: int
    rows: int

    def labels(self) -> np.ndarray:
        return (np.arange(self.first, self.first + self.rows) * 2654435761 >> 7) % CLASSES

    def read(self, rows: Sequence[int] | None = None) -> Any:
        import pyarrow as pa

        chosen = np.arange(self.rows) if rows is None else np.asarray(rows)
        pixels = np.add.outer(self.first + chosen, np.arange(SIDE * SIDE * 3)).astype(np.uint8)
        return pa.table(
            {
                "image": pa.array([each.tobytes() for each in pixels], pa.large_binary()),
                "label": pa.array(self.labels()[chosen]),
                "shape": pa.array([[SIDE, SIDE, 3]] * len(chosen), pa.list_(pa.int32())),
            }
        )

    def name(self, row: int) -> str:
        return f"row {self.first + row}"


def main() -> None:
    if len(sys.argv) > 2:
        measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
        return
    found: dict[str, dict[int, dict[str, float]]] = {"driver": {}, "worker": {}}
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            for role in found:
                command = [sys.executable, "-m", "tests.benchmarks.data_memory", role, str(rows), folder, *sys.argv[1:]]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[role][rows] = json.loads(out.splitlines()[-1])
                print(f"{role} {rows:>10,} rows: {told(found[role][rows])}", flush=True)
    for role, of_rows in found.items():
        for what in ("end", "most"):
            each = [of_rows[rows][what] for rows in ROWS]
            ratio = max(each) / min(each)
            print(
                f"{role}, {what}: largest / smallest {ratio:.3f} ({'within' if ratio <= WITHIN else 'above'} {WITHIN})"
            )


def told(found: dict[str, float]) -> str:
    return f"{found['end']:.0f} MB at the end, {found['most']:.0f} MB at most, {found['seconds']:.1f} s"


def measure(role: str, rows: int, folder: str) -> None:
    """Prints what a process of this role holds."""
    import time

    import torch

    from lehr.data import streaming
    from lehr.data.batches import batches
    from lehr.data.load import splits
    from lehr.data.pixels import PixelFormat
    from lehr.data.reading import small_labels
    from lehr.data.sources.base import Source
    from lehr.data.streaming import Stream, ThreadDecoder
    from lehr.job import from_dict
    from lehr.training.setup import Plan

    torch.set_num_threads(1)
    if "--windows" not in sys.argv:
        streaming.WINDOW_BYTES = 1 << 20
    began = time.perf_counter()
    job: Any = from_dict(
        {"kind": "train", "data": {"cache": "stream", "augment": []}, "model": {"name": "small_cnn", "width": 8}}
    )
    if role == "driver":
        parts = tuple(ComputedPart(first, min(PART, rows - first)) for first in range(0, rows, PART))
        source = Source("computed", parts, tuple(map(str, range(CLASSES))))
        labels = small_labels(source)
        np.save(Path(folder, "labels.npy"), labels)
        Path(folder, "source.pickle").write_bytes(pickle.dumps(source))
    else:
        source = pickle.loads(Path(folder, "source.pickle").read_bytes())
        labels = np.load(Path(folder, "labels.npy"), mmap_mode="r")
    wanted = PixelFormat((SIDE, SIDE), 3)
    plan = Plan.make(job, splits(job, {"train": Stream(source, labels, wanted, ThreadDecoder(2))}))
    if role == "worker":
        found = batches(plan.splits.train, plan.sampler, plan.augment, 0, 0, 0, 4)
        for _ in zip(range(min(STEPS, plan.sampler.steps)), found, strict=False):
            pass
        found.close()  # type: ignore[attr-defined]
        evaluated = plan.splits.validation.in_order(0, 4, 1024)
        for _ in zip(range(10), evaluated, strict=False):
            pass
        evaluated.close()  # type: ignore[attr-defined]
        assert len(plan.clean_train) <= 2000
    print(json.dumps({"end": resident("VmRSS"), "most": resident("VmHWM"), "seconds": time.perf_counter() - began}))


def resident(what: str) -> float:
    """Megabytes, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1000


if __name__ == "__main__":
    main()
