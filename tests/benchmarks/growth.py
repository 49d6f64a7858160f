"""How cost grows with the number of workers, trials and rows: a table for each, and a picture of all three.

    python -m tests.benchmarks.growth [workers|trials|rows …]

Workers: the compute of a step is a wait of 50 ms, so that many workers fit on few cores; whatever is added to it is
overhead: reading, recording and synchronising the workers. Trials: searches with many trials of one tiny epoch.
Rows: images of 8 x 8 pixels in memory; the time until training starts, and the time of an epoch per row. The picture is
written beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from tests.benchmarks.alternating import figure

WAIT = 0.05
Row = dict[str, float]


class Waiting(nn.Module):
    """A network that waits instead of computing."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            time.sleep(WAIT)
        out: Tensor = self.head(images.mean(dim=(2, 3)))
        return out


def run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Runs a job and returns its last progress, with the seconds of the whole command."""
    file = folder / "job.yaml"
    file.write_text(json.dumps({"name": "growth", "storage": str(folder / "runs"), **job}))
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lehr", "run", str(file)], check=True, capture_output=True)
    took = time.perf_counter() - started
    progress: dict[str, Any] = json.loads((folder / "runs/growth/progress.json").read_text())
    return progress | {"command": took}


def workers(count: int, folder: Path) -> Row:
    job = {
        "kind": "train",
        "model": {"name": "tests.benchmarks.growth:Waiting"},
        "train": {"epochs": 3, "batch_size": 16, "evaluated_training_rows": 0},
        "optimizer": {"lr": 0.01},
        "workers": {"count": count},
    }
    progress = run(folder, job)
    seconds = progress["seconds"]
    each = (seconds["input"] + seconds["compute"] + seconds["records"]) / progress["step"]
    return {"workers": count, "start-up s": seconds["startup"], "added to a step, ms": 1000 * (each - WAIT)}


def trials(count: int, folder: Path) -> Row:
    base = {
        "model": {"name": "small_cnn", "width": 8},
        "data": {"limit": 64},
        "train": {"epochs": 1, "batch_size": 64, "evaluated_training_rows": 0},
    }
    space = {"optimizer.lr": {"log_uniform": [0.001, 0.1]}}
    job = {"kind": "search", "base": base, "space": space, "stopping": "none", "budget": {"trials": count}}
    took = run(folder, job)["command"]
    return {"trials": count, "command s": took, "ms per trial": 1000 * took / count}


def rows(count: int, folder: Path) -> Row:
    random = np.random.default_rng(0)
    columns: dict[str, pa.DataType] = {"image": pa.binary(), "label": pa.int64(), "shape": pa.list_(pa.int32())}
    schema = pa.schema(columns, {"classes": ",".join("0123456789")})
    with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
        for first in range(0, count, 50_000):
            size = min(50_000, count - first)
            pixels = random.integers(0, 256, (size, 64), dtype=np.uint8)
            images = [pixels[i].tobytes() for i in range(size)]
            labels = random.integers(0, 10, size).tolist()
            table = pa.table({"image": images, "label": labels, "shape": [[8, 8, 1]] * size}, schema=schema)
            writer.write_table(table)
    job = {
        "kind": "train",
        "data": {"source": "parquet", "path": str(folder / "rows.parquet"), "validation": 0.01},
        "model": {"name": "small_cnn", "width": 8},
        "optimizer": {"lr": 0.01},
        "train": {"epochs": 1, "batch_size": 500, "evaluated_training_rows": 0},
    }
    seconds = run(folder, job)["seconds"]
    training = seconds["input"] + seconds["compute"]
    return {"rows": count, "start-up s": seconds["startup"], "µs per row": 1e6 * training / count}


GROWTH: dict[str, tuple[Callable[[int, Path], Row], tuple[int, ...]]] = {
    "workers": (workers, (1, 2, 4, 8)),
    "trials": (trials, (10, 30, 100, 300)),
    "rows": (rows, (1_000, 10_000, 100_000, 1_000_000)),
}


def draw(found: dict[str, list[Row]]) -> bytes:
    """A PNG picture of every measurement against what grew."""
    import altair as alt
    import vl_convert

    panels = []
    for of_kind in found.values():
        grew, *measured = of_kind[0]
        for name in measured:
            values = [{"x": row[grew], "y": row[name]} for row in of_kind]
            x = alt.X("x:Q", title=grew, scale=alt.Scale(type="log"))
            y = alt.Y("y:Q", title=name, scale=alt.Scale(zero=True))
            chart = alt.Chart(alt.InlineData(values=values)).mark_line(point=True).encode(x=x, y=y)
            panels.append(chart.properties(width=220, height=160))
    return vl_convert.vegalite_to_png(alt.concat(*panels, columns=2).to_dict(), scale=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*")
    options = parser.parse_args()
    found: dict[str, list[Row]] = {}
    for kind in options.kinds or GROWTH:
        measure, counts = GROWTH[kind]
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(kind, []).append(measure(count, Path(folder)))
            row = found[kind][-1]
            print("  " + ", ".join(f"{name} {figure(value)}" for name, value in row.items()), flush=True)
    if not options.kinds:
        Path(__file__).with_suffix(".png").write_bytes(draw(found))


if __name__ == "__main__":
    main()
