"""Workers that hang or are lost: how it is detected, and what the message says."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lehr.errors import LehrError
from lehr.runs import RunFolder
from lehr.training.failures import describe, describe_lost_workers, is_lost_peer
from lehr.training.group import Group
from lehr.training.loop import Attempt, Caller
from lehr.training.setup import Plan
from tests.faults.accidents import Accident
from tests.faults.story import EVERY_EPOCH, command
from tests.support import Died, largest_difference, records, tiny, train_here, weights


def _wait_for_the_other(rank: int, meeting: str, what: int, told: Connection) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=3))
    dist.all_reduce(torch.zeros(1))
    if rank:
        os.kill(os.getpid(), what)
    began = time.monotonic()
    try:
        dist.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        told.send((is_lost_peer(error), time.monotonic() - began, str(error)))


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL])
def test_the_other_workers_detect_one_that_hangs_or_dies(what: signal.Signals, tmp_path: Path) -> None:
    context = mp.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (f"file://{tmp_path}/met", int(what), theirs)
    processes = [context.Process(target=_wait_for_the_other, args=(rank, *arguments)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        assert ours.poll(60), "nobody detected it"
        is_lost, seconds, text = ours.recv()
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert is_lost, text
    assert seconds < 6


# Ray 2.60's own messages: python/ray/exceptions.py, python/ray/train/v2/_internal/exceptions.py
DEAD = "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker"
OUT_OF_MEMORY = "Task was killed due to the node running low on memory.\nMemory on the node was 15.2GB / 16GB (0.95)"
HANGING = "A worker health check has been hanging for 60.12 seconds. Marking the worker as dead.\nWorker info: …"
PEER = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711"


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ({0: RuntimeError(PEER), 1: Exception(DEAD)}, "worker 1 exited without an error message"),
        ({0: Exception(OUT_OF_MEMORY), 1: RuntimeError(PEER)}, "worker 0 .* memory is full; .*train.batch_size"),
        ({1: Exception(HANGING)}, "worker 1 did not answer its health check in time and was killed"),
        ({0: RuntimeError(PEER), 1: RuntimeError(PEER)}, "the workers lost their connection"),
        ({2: Exception(f"{DEAD}\nThe actor died because its node has died.")}, "worker 2 was lost with its machine"),
        ({0: ValueError("first line\nlast line")}, "worker 0 failed: last line"),
    ],
)
def test_why_workers_were_lost_is_one_sentence(errors: dict[int, Exception], sentence: str) -> None:
    told = describe_lost_workers(errors)
    assert re.search(sentence, told), told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "the GPU's memory is full"),
        (MemoryError("Unable to allocate 4.0 GiB for an array"), "the machine's memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "batch_size"),
        (type("ObjectStoreFullError", (Exception,), {})("Failed to put object"), "data.cache=stream"),
    ],
)
def test_the_message_for_full_memory_names_the_setting_to_change(error: Exception, setting: str) -> None:
    assert setting in describe(error).sentence
    assert not is_lost_peer(error)


def little_memory(megabytes: int) -> None:
    """Limits the process to so much more memory than it uses now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


def test_a_process_that_runs_out_of_memory_names_the_setting_to_change(tmp_path: Path) -> None:
    job = tiny(model__width=1024, train__batch_size=330, train__epochs=1)
    with pytest.raises(LehrError, match=r"memory is full; try a smaller train\.batch_size"):
        command(job, tmp_path / "run", partial(little_memory, 600))
    run = RunFolder.open(tmp_path / "run")
    assert run.status() == "failed"
    outcome = run.outcome()
    assert outcome
    assert "memory is full" in outcome.message


def test_a_run_that_resumes_with_fewer_or_more_workers_ends_the_same_to_nine_digits(tmp_path: Path) -> None:
    """Another number of workers sums in another order, so not to the last digit."""
    job = tiny(train__precision="fp64", train__checkpoint={"every": "4step"})
    whole = train_here(job, tmp_path / "whole")
    for workers, step in ((2, 8), (1, 8)):  # saved at steps 4 and 6, where an epoch ends; then at 12 and lost at 13
        killed = Accident("killed", "mid-step", step, workers - 1, str(tmp_path / f"diary-{workers}"))
        with pytest.raises(Died):
            train_here(job, tmp_path / "run", workers, killed)
    run = train_here(job, tmp_path / "run", 3)
    for one, other in zip(records(whole), records(run), strict=True):
        assert largest_difference(one, other) < 1e-9
    for name, value in weights(whole).items():
        assert (value - weights(run)[name]).abs().max() < 1e-9, name
    events = run.events()
    resumed = [
        (event["step"], event["message"].rpartition("with ")[2]) for event in events if event["kind"] == "resumed"
    ]
    assert resumed == [(6, "1 worker"), (12, "3 workers")]


def warn_at(step: int) -> None:
    """Announces at a step that this machine is about to be taken away, and kills the process if it trains on."""
    import lehr.training.synchronisation
    from lehr.training.train_step import TrainStep

    lehr.training.synchronisation.SYNC_SECONDS = 0.0  # synchronise after every step
    seen, take, make = [0], TrainStep.__call__, Attempt.__init__

    def made(self: Attempt, plan: Plan, run: RunFolder, group: Group, callbacks: Caller) -> None:
        make(self, plan, run, group, replace(callbacks, must_leave=lambda: "spot" if seen[0] >= step else None))

    def take_or_die(self: Any, batch: Any, rows: int, number: int) -> Any:
        seen[0] = number
        if number == step + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, batch, rows, number)

    Attempt.__init__, TrainStep.__call__ = made, take_or_die  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("workers", [1, 2])
def test_at_a_notice_that_the_machine_is_taken_away_workers_save_and_leave(tmp_path: Path, workers: int) -> None:
    whole = train_here(EVERY_EPOCH, tmp_path / "whole", workers)
    run = train_here(EVERY_EPOCH, tmp_path / "run", workers, partial(warn_at, 9))
    saved = sorted(file.name for file in (tmp_path / "run/checkpoints").iterdir())
    assert saved == ["step-0000000006-0001", "step-0000000010-0001"]  # every 6 steps, and at the notice
    assert run.outcome() is None, "the run has not ended"
    assert run.lost()
    run = train_here(EVERY_EPOCH, tmp_path / "run", workers)
    for one, other in zip(records(whole), records(run), strict=True):
        assert one.equals(other)
    assert [event["kind"] for event in run.events()] == ["started", "warned", "lost", "resumed", "finished"]
    assert run.events()[3]["step"] == 10
