"""Predictions per second: lehr's pool of actors against a DataLoader loop, and five members against one.

CIFAR-10 as PNG in Parquet, small_cnn 32 wide with random weights, the same cores for both sides. The loop is what a
careful user writes: a Dataset that decodes, DataLoader workers, batches of 256, inference mode, and one Parquet file at
the end. Both are timed from their first results to their last row written: start-up (of Ray and of its actors, of the
loader's workers) is printed apart.

    python -m tests.benchmarks.predict DATA.parquet [rounds]
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lehr import models
from lehr.clusters.local import cluster
from lehr.clusters.machine import cores
from lehr.data.sources import open_source
from lehr.job import DataSection, WorkersSection, from_dict, to_dict
from lehr.predict import load_predictor, write_ensemble
from lehr.predict.desk import Order, decode_ahead
from lehr.predict.ray_predict import predict_on_ray
from lehr.predict.rows import prepare
from lehr.runs import Folder, RunFolder, write_model
from tests.benchmarks.alternating import compare

ROWS, BATCH, WIDTH, MEMBERS = 16_384, 256, 32, 5
startups: dict[str, list[float]] = {}


def make_run(place: Path, seed: int) -> RunFolder:
    run = RunFolder.create(Folder.at(place), to_dict(from_dict({"kind": "train", "seed": seed})), {})
    model = models.build("small_cnn", 3, 10, {"width": WIDTH}, seed)
    about = {"height": 32, "width": 32, "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    spec = {"name": "small_cnn", "options": {"width": WIDTH}}
    write_model(
        run.folder, model.state_dict(), {"model": spec, "classes": classes, "preprocess": about, "dtype": "float32"}
    )
    return run


def ours(data: Path, run: RunFolder, out: Path) -> float:
    """Images per second of the actors that `lehr predict` starts, on a Ray that is up already."""
    predictor = load_predictor(run.folder)
    section = DataSection(source="parquet", path=str(data))
    source = prepare(open_source(section, lambda field, what: AssertionError(what)), predictor)  # type: ignore[arg-type,return-value]
    starts = tuple(source.starts[:-1].tolist())
    order = Order(run.folder, Folder.at(out), starts, False, BATCH, os.getcwd(), "benchmark")
    began, first, rows = time.perf_counter(), 0.0, 0
    numbers = list(range(len(source.parts)))
    for done in predict_on_ray(source, predictor.size, predictor.channels, order, numbers, WorkersSection()):
        if first:
            rows += done.rows
        first = first or time.perf_counter()
    startups.setdefault("lehr", []).append(first - began)
    return rows / (time.perf_counter() - first)


class Rows(Dataset[Any]):
    def __init__(self, path: Path) -> None:
        self.images = pq.read_table(path)["image"].to_pylist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        pixels = np.asarray(Image.open(io.BytesIO(self.images[row])).convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@torch.inference_mode()
def by_hand(data: Path, run: RunFolder, out: Path, workers: int) -> float:
    """Images per second of the loop that a user would write."""
    torch.set_num_threads(cores())
    predictor = load_predictor(run.folder)
    model = predictor.networks[0].model
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.5,) * 3, (0.25,) * 3))
    began, first, found = time.perf_counter(), 0.0, []
    rows = 0
    for images in DataLoader(Rows(data), batch_size=BATCH, num_workers=workers):
        found.append(model((images.float() / 255 - mean) / std).softmax(dim=1))
        if first:
            rows += len(images)
        first = first or time.perf_counter()
    probabilities = torch.cat(found).numpy()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(probabilities.reshape(-1)), probabilities.shape[1])
    pq.write_table(pa.table({"id": np.arange(len(probabilities)), "probabilities": flat}), out)
    startups.setdefault("DataLoader", []).append(first - began)
    return rows / (time.perf_counter() - first)


def decoding(data: Path) -> float:
    """Seconds of one core for decoding all rows, in this process."""
    source = open_source(DataSection(source="parquet", path=str(data)), lambda field, what: AssertionError(what))  # type: ignore[arg-type,return-value]
    began = time.perf_counter()
    for _ in decode_ahead(source, (32, 32), 3, range(len(source.parts)), 1):
        pass
    return time.perf_counter() - began


def main(path: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place, cluster(1, None):
        folder = Path(place)
        table = pq.ParquetFile(path)
        with pq.ParquetWriter(folder / "data.parquet", table.schema_arrow) as writer:
            writer.write_batch(next(table.iter_batches(batch_size=ROWS)), row_group_size=1024)
        data, one = folder / "data.parquet", make_run(folder / "one", 0)
        five = RunFolder.create(Folder.at(folder / "five"), one.job, {})
        for seed in range(MEMBERS):
            make_run(folder / f"five/members/{seed + 1:02}", seed)
        write_ensemble(five.folder, "probabilities", "equal", [(f"members/{k + 1:02}", 1.0) for k in range(MEMBERS)])
        sides = {
            "lehr predict": lambda: ours(data, one, folder / "out"),
            f"DataLoader, {cores()} workers": lambda: by_hand(data, one, folder / "loop.parquet", cores()),
        }
        compare("prediction with one network", "images/s", sides, rounds, "at least 1.0 (higher is better)")
        for name, seconds in startups.items():
            print(f"start-up until the first results, {name}: {min(seconds):.1f} to {max(seconds):.1f} s")
        pair = {
            f"{MEMBERS} members, one pass": lambda: ours(data, five, folder / "out5"),
            "one network": lambda: ours(data, one, folder / "out"),
        }
        ratio = compare("five members against one", "images/s", pair, max(1, rounds - 1), "above 0.2 (one fifth)")
        print(
            f"one pass for {MEMBERS} members takes {1 / ratio:.2f} times as long as one network, not {MEMBERS} times;"
        )
        print(
            f"decoding {ROWS:,} images, done once instead of {MEMBERS} times, takes {decoding(data):.1f} s of one core"
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
