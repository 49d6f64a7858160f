"""Training speed on one GPU: lehr's loop against a hand-tuned plain PyTorch loop.

ResNet-50 at 224 pixels in bf16 and channels-last, SGD with momentum, a cosine schedule, and random images in the GPU's
memory on both sides. The hand-tuned loop uses what makes it fast and records nothing. Ours records every step, measures
update sizes and listens for stop requests. Evaluation, checkpoints and start-up are excluded on both sides.

    python -m tests.benchmarks.gpu_step [rounds]
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lehr import models
from lehr.data.dataset import Images, Splits
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from tests.benchmarks.alternating import compare


@dataclass(frozen=True)
class Size:
    """What is trained; this file's test uses a tiny size."""

    device: torch.device
    model: str = "resnet50"
    pixels: int = 224
    rows: int = 4096
    batch: int = 256
    epochs: int = 6
    classes: int = 1000

    def images(self) -> Images:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (self.rows, self.pixels, self.pixels, 3), dtype=np.uint8)
        return Images(pixels, np.arange(self.rows) % self.classes, tuple(map(str, range(self.classes))))


def ours(size: Size, images: Images) -> float:
    """Examples per second, from the times that the run records."""
    job = from_dict(
        {
            "data": {"cache": "device"},
            "model": size.model,
            "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "fused": True},
            "schedule": "cosine",
            "train": {
                "epochs": size.epochs,
                "batch_size": size.batch,
                "precision": "bf16",
                "channels_last": True,
                "evaluated_training_rows": 0,
                "checkpoint": {"every": f"{size.epochs}ep"},
            },
        }
    )
    assert isinstance(job, TrainJob)
    everything = torch.arange(size.rows)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Folder.at(Path(folder) / "run"), to_dict(job))
        plan = Plan.make(job, Splits(images.rows(everything), images.rows(everything[: size.batch])))
        train(plan, run, Group(device=size.device))
        seconds = run.progress().seconds
        return size.rows * size.epochs / (seconds["total"] - seconds["evaluation"] - seconds["checkpoints"])


def by_hand(size: Size, images: Images) -> float:
    """Examples per second of the loop that a GPU expert would write."""
    torch.backends.cudnn.benchmark = True
    device = size.device
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(images.labels).to(device)
    model = models.build(size.model, 3, size.classes, {}, seed=0).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    steps = math.ceil(size.rows / size.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.epochs * steps)
    began = _now(device)
    for _ in range(size.epochs):
        for mine in torch.randperm(size.rows, device=device).split(size.batch):
            batch = pixels[mine].float().sub_(127.5).div_(74.0).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                outputs = model(batch)
            loss = F.cross_entropy(outputs.float(), labels[mine])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return size.rows * size.epochs / (_now(device) - began)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(size: Size, rounds: int) -> float:
    images = size.images()
    for side in (ours, by_hand):  # lets cuDNN choose its convolutions
        side(replace(size, epochs=1), images)
    sides = {"lehr": lambda: ours(size, images), "by hand": lambda: by_hand(size, images)}
    return compare(f"{size.model} on one GPU", "examples/s", sides, rounds, "at least 0.98 (higher is better)")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA GPU")
    print(torch.cuda.get_device_name())
    measure(Size(torch.device("cuda")), int(sys.argv[1]) if len(sys.argv) > 1 else 5)
