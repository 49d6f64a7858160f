"""Memory of the driver and of a worker as a streamed data set grows: it should stay constant.

    python -m tests.benchmarks.memory [rows]

One epoch over 1, 10 and 100 times as many JPEGs of 64 x 64 pixels, streamed, on one Ray Train worker. The figure is the
peak of the memory that a process does not share (USS), sampled ten times a second. A worker holds two windows of
decoded pixels of at most 256 MB each; here they are 4 MB, since their growth would hide what else grows.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lehr.data import streaming
from tests.benchmarks import input_training

TIMES = (1, 10, 100)


class Light(input_training.Light):
    """Makes the windows small in the process that builds it."""

    def __init__(self, channels: int, outputs: int) -> None:
        streaming.WINDOW_BYTES = 4 << 20
        super().__init__(channels, outputs)


def images(path: Path, rows: int, of: int = 200) -> None:
    """Writes a file of many rows whose images repeat, which makes no difference to decoding."""
    encoded = []
    for row in range(of):
        file = io.BytesIO()
        rough = Image.fromarray(np.random.default_rng(row).integers(0, 256, (16, 16, 3), dtype=np.uint8))
        rough.resize((64, 64), Image.Resampling.BICUBIC).save(file, "JPEG")
        encoded.append(file.getvalue())
    columns: dict[str, pa.DataType] = {"image": pa.binary(), "label": pa.int64()}
    schema = pa.schema(columns, {"classes": ",".join("0123456789")})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, 1000):
            some = range(first, min(first + 1000, rows))
            table = pa.table({"image": [encoded[i % of] for i in some], "label": [i % 10 for i in some]}, schema=schema)
            writer.write_table(table)


def measure(folder: Path, rows: int) -> dict[str, float]:
    """The largest memory in MB of the driver and of the worker over one epoch."""
    images(folder / "images.parquet", rows)
    job = {
        "kind": "train",
        "name": "memory",
        "storage": str(folder / "runs"),
        "data": {"source": "parquet", "path": str(folder / "images.parquet"), "validation": 0.02, "cache": "stream"},
        "model": {"name": "tests.benchmarks.memory:Light"},
        "optimizer": {"lr": 0.01},
        "train": {"epochs": 1, "batch_size": 100, "evaluated_training_rows": 0},
        "workers": {"count": 1},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    process = subprocess.Popen(
        [sys.executable, "-m", "lehr", "run", str(folder / "job.yaml")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    most = {"driver": 0.0, "worker": 0.0}
    while process.poll() is None:
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                name = "driver" if each.pid == process.pid else "worker" if "RayTrainWorker" in each.name() else ""
                name = name or ("worker" if "RayTrainWorker" in " ".join(each.cmdline()[:1]) else "")
                if name:
                    most[name] = max(most[name], each.memory_full_info().uss / 1e6)
            except psutil.Error:
                continue
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(process.communicate()[1].decode())
    return most


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found = {}
    for times in TIMES:
        with tempfile.TemporaryDirectory() as folder:
            found[times] = measure(Path(folder), rows * times)
        print(
            f"  {rows * times:9,} images: " + ", ".join(f"{k} {v:,.0f} MB" for k, v in found[times].items()), flush=True
        )
    for name in ("driver", "worker"):
        print(
            f"memory of the {name}, {TIMES[-1]} times the data / the data: "
            f"{found[TIMES[-1]][name] / found[1][name]:.2f}; expected about 1"
        )


if __name__ == "__main__":
    main()
