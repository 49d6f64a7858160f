"""Training speed with two workers: lehr's loop against a hand-written DDP loop started by torchrun.

Both train the same network (small_cnn of width 32) on the digits with a global batch of 128, two processes with one
thread each, SGD with momentum and a cosine schedule. The hand-written loop is what a careful user would write, and
records nothing. Ours records every step, measures update sizes and listens for stop requests. Neither augments, and
evaluation, checkpoints and start-up are excluded on both sides.

    python -m tests.benchmarks.train_overhead [rounds]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.alternating import compare

EPOCHS, BATCH, WIDTH = 40, 128, 32


def ours() -> float:
    """Examples per second of `lehr run` on Ray Train workers, from the times that the run records."""
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "kind": "train",
            "name": "overhead",
            "storage": folder,
            "model": {"name": "small_cnn", "width": WIDTH},
            "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": "cosine",
            "train": {"epochs": EPOCHS, "batch_size": BATCH, "checkpoint": {"every": f"{EPOCHS}ep"}},
            "workers": {"count": 2},
        }
        file = Path(folder) / "job.yaml"
        file.write_text(json.dumps(job))
        subprocess.run([sys.executable, "-m", "lehr", "run", file], check=True, capture_output=True)
        from lehr import Run

        run = Run(f"{folder}/overhead").folder
        seconds = run.progress().seconds
        training = seconds["total"] - seconds["evaluation"] - seconds["checkpoints"]
        return int(run.steps()["examples"].to_numpy().sum()) / training


def by_hand() -> float:
    """Examples per second of the loop below under torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", __spec__.name]
    done = subprocess.run([*launch, "worker"], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def worker() -> None:
    import math

    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from torch.nn.parallel import DistributedDataParallel

    from lehr.data.load import OpenedSources, splits
    from lehr.job import TrainJob, from_dict
    from lehr.models.small_cnn import SmallCNN

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    job = from_dict({"kind": "train"})
    assert isinstance(job, TrainJob)
    rows = splits(job, OpenedSources(job).decode()).train
    everything = rows.gather(torch.arange(len(rows)))
    images, labels = everything.inputs.float().div(255).contiguous(), everything.targets
    images = ((images - images.mean()) / images.std()).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    network = SmallCNN(1, 10, width=WIDTH).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = DistributedDataParallel(network, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    steps = math.ceil(len(labels) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    dist.barrier()
    started = time.perf_counter()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for step in range(steps):
            mine = order[step * BATCH : (step + 1) * BATCH][rank::size]
            loss = F.cross_entropy(model(images[mine]), labels[mine])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    dist.barrier()
    if rank == 0:
        print(len(labels) * EPOCHS / (time.perf_counter() - started))
    dist.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
        compare(
            "training on 2 workers, CPU",
            "examples/s",
            {"lehr": ours, "torchrun": by_hand},
            rounds,
            "at least 0.98 (higher is better)",
        )
