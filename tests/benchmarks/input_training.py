"""Input pipeline while training: lehr's batches against what a user could write in plain PyTorch, on the same cores.

Cached: a small network on images of CIFAR-10's size. lehr's loop body (batches from shared memory, normalised, one
update with its recorded measures) against a hand-written one over tensors in memory. Streamed: JPEGs of 256 x 256
pixels, decoded, cropped and flipped, through a network that costs next to nothing, against a `DataLoader` with its best
number of workers. Both sides augment the same way.

    python -m tests.benchmarks.input_training [rounds]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lehr.data.batches import batches
from lehr.data.dataset import Images, Splits
from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, from_dict
from lehr.machine import cores
from lehr.ray_cluster.connection import connect
from lehr.training.group import Group
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep
from tests.benchmarks.alternating import compare

BATCH, SIZE, PADDING = 64, 256, 16


class Light(nn.Module):
    """A cheap network that reads every pixel, so that the input is what is measured."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, 8, kernel_size=16, stride=16)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.look(images)).mean(dim=(2, 3)))
        return out


def job_of(**sections: object) -> TrainJob:
    job = from_dict(
        {"kind": "train", "optimizer": {"lr": 0.01, "momentum": 0.9}, "train": {"batch_size": BATCH}, **sections}
    )
    assert isinstance(job, TrainJob)
    return job


def by_lehr(plan: Plan) -> Callable[[], float]:
    """Examples per second of one epoch of lehr's loop body; a new epoch at each call."""
    group = Group()
    model = prepare_model(plan, group)
    train_step, epoch = TrainStep(plan, model, group), 0

    def measure() -> float:
        nonlocal epoch
        epoch += 1
        model.train()
        started, losses = time.perf_counter(), []
        for step, batch in enumerate(batches(plan.splits.train, plan.sampler, plan.augment, epoch)):
            losses.append(train_step(batch, plan.sampler.size(step), step)[0])
        torch.stack(losses).sum().item()
        return plan.sampler.rows / (time.perf_counter() - started)

    return measure


def hand_written(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A training step as tutorials write it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def cached(rounds: int) -> None:
    """small_cnn on 8,192 images of 32 x 32 pixels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8192, 32, 32, 3), dtype=np.uint8)
    images = Images(pixels, random.integers(0, 10, 8192), tuple("0123456789"))
    everything = torch.arange(8192)
    plan = Plan.make(job_of(model={"name": "small_cnn"}), Splits(images.rows(everything), images.rows(everything[:10])))
    tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.29)
    tensors = tensors.contiguous(memory_format=plan.memory_format)
    labels = torch.from_numpy(images.labels)
    step = hand_written(plan.build_model().to(memory_format=plan.memory_format))  # type: ignore[call-overload]

    def by_hand() -> float:
        started, losses = time.perf_counter(), []
        for some in torch.randperm(len(labels)).split(BATCH):
            losses.append(step(tensors[some], labels[some]))
        torch.stack(losses).sum().item()
        return len(labels) / (time.perf_counter() - started)

    sides = {"lehr, cached": by_lehr(plan), "tensors in memory": by_hand}
    compare("Cached input while training", "examples/s", sides, rounds, "at least 0.90 (higher is better)")


class Encoded(Dataset[tuple[Tensor, int]]):
    """JPEGs in memory, decoded, cropped and flipped one by one, as a careful user would write it."""

    def __init__(self, images: list[bytes], labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(io.BytesIO(self.images[row])) as image:
            pixels = np.asarray(image.convert("RGB"))
        padded = np.pad(pixels, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="reflect")
        top, left = torch.randint(2 * PADDING + 1, (2,)).tolist()
        window = padded[top : top + SIZE, left : left + SIZE]
        if torch.rand(()) < 0.5:
            window = window[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1), self.labels[row]


def streamed(rounds: int, folder: Path, cpus: int) -> None:
    from lehr.data.ray_data import RayDecoder

    path = jpegs(folder / "jpegs.parquet")
    table = pq.read_table(path)
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    data = Encoded(cast(list[bytes], images), cast(list[int], labels))
    step = hand_written(Light(3, 10))

    def loader(workers: int) -> float:
        ahead, started = 4 if workers else None, time.perf_counter()
        for images, labels in DataLoader(data, BATCH, shuffle=True, num_workers=workers, prefetch_factor=ahead):
            step(images.float().div_(255).sub_(0.5).div_(0.29), labels)
        return len(data) / (time.perf_counter() - started)

    section = {"source": "parquet", "path": str(path), "validation": 0.01, "cache": "stream"}
    augment = ["flip", {"name": "crop", "padding": PADDING}]
    model = {"name": "tests.benchmarks.input_training:Light"}
    job = job_of(data={**section, "augment": augment}, model=model)
    ours = by_lehr(Plan.make(job, splits(job, OpenedSources(job).stream(RayDecoder(cpus, spare_cpus=False)))))
    found = {workers: loader(workers) for workers in range(cores() + 1)}
    best = max(found, key=lambda workers: found[workers])
    print(f"  DataLoader: {', '.join(f'{n} workers {rate:,.0f}' for n, rate in found.items())}; best {best}")
    ours()  # lets Ray start its processes
    sides = {"lehr, streamed": ours, "DataLoader": lambda: loader(best)}
    compare("Streamed input while training", "examples/s", sides, rounds, "at least 1.0 (higher is better)")


def jpegs(path: Path, rows: int = 2000) -> Path:
    """Random images of 256 x 256 pixels with about as much detail as photographs: 20 kB each."""
    images = []
    for row in range(rows):
        random, file = np.random.default_rng(row), io.BytesIO()
        rough = Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        rough.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        images.append(file.getvalue())
    print(f"  {rows} JPEGs of {sum(map(len, images)) / rows / 1000:.0f} kB")
    table = pa.table({"image": images, "label": [row % 10 for row in range(rows)]})
    pq.write_table(table.replace_schema_metadata({"classes": ",".join("0123456789")}), path, row_group_size=rows // 20)
    return path


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(cores())
    cached(rounds)
    with tempfile.TemporaryDirectory() as folder, connect(1, None) as resources:
        streamed(rounds, Path(folder), max(2, int(resources.cpus)))


if __name__ == "__main__":
    main()
