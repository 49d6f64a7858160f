"""Speed of the input pipeline: batches from lehr against what a user could write in plain PyTorch, on the same cores.

Cached: batches gathered from shared memory, against a shuffled index into one uint8 tensor. Streamed: JPEGs from
Parquet, decoded by Ray tasks into batches, against a `DataLoader` over the encoded images in memory, with Pillow and
with simplejpeg, each with its best number of workers; then the same for generated images of 256 × 256 pixels. The data
are CIFAR-10's training split if this machine has it (`cifar.py`), else generated images. No network is trained, so
nothing overlaps with decoding; both sides end with batches of 128 as uint8 tensors.

    python -m tests.benchmarks.input [rounds]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lehr.data import jpeg
from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.dataset import BatchSampler, DataSubset
from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, from_dict
from lehr.machine import cores
from lehr.ray_cluster.connection import connect
from tests.benchmarks import cifar
from tests.benchmarks.alternating import compare

BATCH = 128


class Encoded(Dataset[tuple[torch.Tensor, int]]):
    """What a careful user would write: encoded images in memory, decoded one by one."""

    def __init__(self, path: Path, fast: bool = False) -> None:
        self.fast = fast
        table = pq.read_table(path)
        self.images: list[Any] = table["image"].to_pylist()
        self.labels: list[Any] = table["label"].to_pylist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if self.fast:
            pixels = jpeg.simplejpeg.decode_jpeg(self.images[row])
        else:
            with Image.open(io.BytesIO(self.images[row])) as image:
                pixels = np.array(image.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), self.labels[row]


def speed(items: Iterable[Any], rows: int) -> float:
    """Images per second, up to the last batch."""
    started = time.perf_counter()
    for _ in items:
        pass
    return rows / (time.perf_counter() - started)


def epoch_of(rows: DataSubset, epoch: int) -> float:
    epochs = BatchSampler(len(rows), BATCH, 0, rows.order)
    return speed(batches(rows, epochs, Augment([], 0), epoch), len(rows))


def cached(rows: DataSubset, rounds: int) -> None:
    pixels = rows.gather(torch.arange(len(rows)))
    plain_pixels, plain_labels = pixels.inputs.contiguous(), pixels.targets

    def plain() -> float:
        order = torch.randperm(len(rows))
        return speed(((plain_pixels[some], plain_labels[some]) for some in order.split(BATCH)), len(rows))

    sides = {"lehr cached": lambda: epoch_of(rows, 0), "tensors in memory": plain}
    compare("Cached input", "images/s", sides, rounds, "about 1")


def streamed(rows: DataSubset, path: Path, rounds: int, fast: bool) -> None:
    data = Encoded(path, fast)

    def loader(workers: int) -> float:
        ahead = 4 if workers else None
        return speed(DataLoader(data, BATCH, shuffle=True, num_workers=workers, prefetch_factor=ahead), len(data))

    found = {workers: loader(workers) for workers in range(cores() + 1)}
    best = max(found, key=lambda workers: found[workers])
    print(f"  DataLoader: {', '.join(f'{n} workers {rate:,.0f}' for n, rate in found.items())}; best {best}")
    epoch_of(rows, 0)  # lets Ray start its processes
    name = f"DataLoader, {'simplejpeg' if fast else 'Pillow'}"
    sides = {"lehr streamed": lambda: epoch_of(rows, 1), name: lambda: loader(best)}
    size = " × ".join(map(str, rows.shape[1:]))
    compare(f"Streamed input, {size}", "images/s", sides, rounds, "1 or more")


def generated(path: Path, rows: int = 20_000, side: int = 32) -> Path:
    """Random JPEGs of one size."""
    images = []
    for row in range(rows):
        file = io.BytesIO()
        rough = np.random.default_rng(row).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((side, side), Image.Resampling.BILINEAR).save(file, "JPEG")
        images.append(file.getvalue())
    table = pa.table({"image": images, "label": [row % 10 for row in range(rows)]})
    names = {"classes": ",".join("0123456789")}
    pq.write_table(table.replace_schema_metadata(names), path, row_group_size=rows // 10)
    return path


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as folder, connect(1, None) as resources:
        from lehr.data.ray_data import RayDecoder, Shared, SharedStream, read_with_ray

        small = cifar.TRAIN if cifar.TRAIN.exists() else generated(Path(folder) / "generated.parquet")
        for path in (small, generated(Path(folder) / "large.parquet", 4000, 256)):
            job = from_dict({"kind": "train", "data": {"source": "parquet", "path": str(path), "validation": 0.001}})
            assert isinstance(job, TrainJob)
            opened, decoder = OpenedSources(job), RayDecoder(max(2, int(resources.cpus)), spare_cpus=False)
            if path == small:
                shared = Shared.put(opened.decode(read_with_ray)["train"])
                cached(splits(job, {"train": shared.open()}).train, rounds)
            stream = SharedStream.put(opened.stream(decoder)["train"])
            for fast in (False, True) if jpeg.simplejpeg else (False,):
                streamed(splits(job, {"train": stream.open()}).train, path, rounds, fast)


if __name__ == "__main__":
    main()
