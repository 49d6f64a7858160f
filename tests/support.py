"""Shared by several tests: tiny jobs, and training in plain processes without Ray."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lehr.data.load import OpenedSources, splits
from lehr.data.streaming import ThreadDecoder
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, RunFolder, read_model, without_timing
from lehr.runs.storage import to_sealed_json
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

TINY: dict[str, Any] = {
    "data": {"source": "digits", "limit": 330, "augment": ["shift"]},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "cosine", "warmup": "1ep"},
    # 330 rows in batches of 64: five full ones and a last one of 10, so two of 4 workers take 3 rows and two take 2.
    "train": {"epochs": 4, "batch_size": 64, "evaluated_training_rows": 100},
}

PRELOAD = ["torch._dynamo", "torch.distributed", "lehr.training.loop", "lehr.data.load"]
"""Modules that the fork server imports before it starts the first process of a test session."""


def tiny(**overrides: Any) -> TrainJob:
    """The tiny job with dotted overrides (`train__epochs=3`)."""
    job = from_dict(TINY, overrides={path.replace("__", "."): value for path, value in overrides.items()})
    assert isinstance(job, TrainJob)
    return job


def train_here(
    job: TrainJob,
    folder: Path | str,
    workers: int = 1,
    prepare: Callable[..., None] | None = None,
    patience: float = 120.0,
) -> RunFolder:
    """Trains in `workers` plain processes that communicate through gloo.

    Args:
        folder: the run folder, as a path or a URI.
        prepare: called first in every process, to break something on purpose; with its rank if it has `takes_rank`.
        patience: seconds that processes wait for each other. After that the waiting ones fail and the others are
            killed, as Ray Train does.

    Raises:
        Died: a process ended with a signal or an error.
    """
    if not Folder.at(folder).exists("job.yaml"):
        RunFolder.create(Folder.at(folder), to_dict(job))
    # The fork server has imported torch and run nothing, so a process starts in milliseconds instead of seconds.
    # (torch._dynamo: every optimizer imports it when it is created.)
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    meeting = tempfile.mkdtemp()  # a file, since a free port may be taken before it is used
    arguments = (workers, f"file://{meeting}/met", to_dict(job), str(folder), prepare, patience)
    processes = [context.Process(target=_worker, args=(rank, *arguments)) for rank in range(workers)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 120
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        wait([process.sentinel for process in processes if process.is_alive()], timeout=1)
        if any(process.exitcode for process in processes):
            deadline = min(deadline, time.monotonic() + min(patience, 4))  # the others notice it at once
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    shutil.rmtree(meeting)
    if any(process.exitcode for process in processes):
        raise Died([process.exitcode for process in processes])
    return RunFolder.open(folder)


class Died(Exception):
    """Training processes ended early; holds their exit codes, in order of rank."""


def _worker(
    rank: int,
    workers: int,
    meeting: str,
    job: dict[str, Any],
    folder: str,
    prepare: Callable[..., None] | None,
    patience: float,
) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        patient = timedelta(seconds=patience)
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers, timeout=patient)
    if prepare:
        prepare(*([rank] if getattr(prepare, "takes_rank", False) else []))
    parsed = from_dict(job)
    assert isinstance(parsed, TrainJob)
    opened = OpenedSources(parsed)
    streamed = parsed.data.cache == "stream"
    plan = Plan.make(parsed, splits(parsed, opened.stream(ThreadDecoder(1)) if streamed else opened.decode()))
    train(plan, RunFolder.open(folder), Group(rank, workers))
    if workers > 1:
        dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def forge(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file of a run folder, and its checksum with it, as an attacker would."""
    value = json.loads(file.read_text())
    value.pop("sha256", None)
    change(value)
    file.write_bytes(to_sealed_json(value))


def records(run: RunFolder) -> tuple[pa.Table, pa.Table]:
    """The step and epoch records without timing columns: equal runs have them equal to the last digit."""
    return without_timing(run.steps()), without_timing(run.epochs())


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_model(run.folder)[0]


def largest_difference(one: pa.Table, other: pa.Table, rows: int | None = None) -> float:
    """The largest relative difference between two tables of numbers, over their first `rows` rows."""
    assert one.schema.names == other.schema.names
    assert one.num_rows == other.num_rows
    worst = 0.0
    for name in one.schema.names:
        for a, b in zip(one[name].to_pylist()[:rows], other[name].to_pylist()[:rows], strict=True):
            assert (a is None) == (b is None), name
            if a is not None:
                worst = max(worst, abs(a - b) / max(1.0, abs(a)))
    return worst
