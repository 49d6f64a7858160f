"""A run is stopped at any moment, another process takes it over, and the stopped one continues: the run is undisturbed.

What stops is a whole run: its writer in the middle of a file operation, or all its processes at any time. A lease does
not help here: the sleeping writer made sure that it held it, and then slept. `FENCING=200` sets the number of random
schedules on each kind of storage, `SCHEDULE=17` runs a single one.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lehr.data.load import OpenedSources, splits
from lehr.errors import Superseded
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Attempt, Claim, Folder, Lease, RunFolder, RunOutcome, all_attempts
from lehr.runs.progress import outcome_name
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from tests.s3 import BUCKET, s3_environment, s3_server
from tests.support import PRELOAD, records, tiny, train_here, weights

FEW = 6  # on each kind of storage; `make faults` runs 200
IN_CI = 2
SUPERSEDED = 3  # exit code of a writer that noticed
SETTINGS = ("1step", "2step", "5step", "1ep")


def schedules() -> list[Any]:
    if "SCHEDULE" in os.environ:
        return [int(os.environ["SCHEDULE"])]
    count = int(os.environ.get("FENCING", FEW))
    return [pytest.param(seed, marks=[] if seed < IN_CI else pytest.mark.slow) for seed in range(count)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, int], RunFolder]:
    @cache
    def run(every: str, keep: int, workers: int) -> RunFolder:
        return train_here(job_of(every, keep), tmp_path_factory.mktemp("undisturbed") / "run", workers)

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.mark.parametrize("seed", schedules())
def test_on_a_disk(seed: int, undisturbed: Callable[[str, int, int], RunFolder], tmp_path: Path) -> None:
    play(random.Random(f"disk {seed}"), str(tmp_path / "run"), {}, undisturbed)


@pytest.mark.parametrize("seed", schedules())
def test_on_an_object_store(
    seed: int, undisturbed: Callable[[str, int, int], RunFolder], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = s3_environment(server)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    play(random.Random(f"s3 {seed}"), f"s3://{BUCKET}/{secrets.token_hex(6)}/run", environment, undisturbed)


def job_of(every: str, keep: int) -> TrainJob:
    return tiny(data__limit=200, train__epochs=3, train__checkpoint={"every": every, "keep": keep})


def play(
    draw: random.Random, where: str, environment: dict[str, str], undisturbed: Callable[[str, int, int], RunFolder]
) -> None:
    """Plays one random schedule of two or three writers, and compares the run with an undisturbed one."""
    every, keep, workers = draw.choice(SETTINGS), draw.choice([1, 2]), draw.choice([1, 1, 2])
    job = job_of(every, keep)
    RunFolder.create(Folder.at(where), to_dict(job))
    writers: list[Writer] = []
    told = f"every {every}, keep {keep}, {workers} workers"
    try:
        for _ in range(draw.choice([1, 1, 2])):  # writers that sleep
            writer = Writer(job, where, workers, environment, stop_at=draw.randint(1, 160))
            writers.append(writer)
            after = draw.choice([None, None, draw.uniform(0.1, 3.0)])
            writer.stop(after)
            told += f"; stops at operation {writer.stop_at}" if after is None else f"; stops after {after:.1f} s"
            # Earlier sleepers continue while this one sleeps, or all together while the last one writes.
            if draw.random() < 0.3:
                for sleeper in writers[:-1]:
                    sleeper.carry_on()
        newest = Writer(job, where, workers, environment, stop_at=0)
        newest.wait_until_begun()
        time.sleep(draw.choice([0.0, 0.0, 0.3, 1.0]))
        for sleeper in writers:
            sleeper.carry_on()
        assert newest.end() == 0, told
        for sleeper in writers:
            assert sleeper.end() != 0 or sleeper.was_newest_at_its_end(), f"{told}: a replaced writer reports success"
    finally:
        for writer in writers:
            writer.kill()
    run, whole = RunFolder.open(where), undisturbed(every, keep, workers)
    assert run.status() == "finished", told
    for one, other in zip(records(whole), records(run), strict=True):
        assert one.equals(other), f"{told}: the record differs"
    for name, value in weights(whole).items():
        assert value.equal(weights(run)[name]), f"{told}: {name} differs"


class Writer:
    """The processes of one machine that train a run; it takes the run over from whoever has it.

    Attributes:
        stop_at: the file operation in which its first process stops by itself; 0 for never.
    """

    def __init__(self, job: TrainJob, where: str, workers: int, environment: dict[str, str], stop_at: int) -> None:
        self.where, self.stop_at = where, stop_at
        self.place = Path(tempfile.mkdtemp())
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([*PRELOAD, "boto3", "lehr.runs.lease"])
        arguments = (workers, str(self.place), to_dict(job), where, environment, stop_at)
        self.processes = [context.Process(target=_work, args=(rank, *arguments)) for rank in range(workers)]
        for process in self.processes:
            process.start()

    def wait_until_begun(self) -> None:
        self._wait(lambda: (self.place / "begun").exists() and bool((self.place / "begun").read_text()))

    def stop(self, after: float | None) -> None:
        """Returns once all processes have stopped: in an operation of the first one, or `after` so many seconds."""
        self.wait_until_begun()
        if after is None:
            self._wait(lambda: (self.place / "stops").exists())
        else:
            time.sleep(after)
        self._send(signal.SIGSTOP)
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.processes[0].pid)
            self._wait(lambda: first.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))

    def carry_on(self) -> None:
        self._send(signal.SIGCONT)

    def end(self) -> int | None:
        """The exit code of the first process, once all have ended."""
        self.processes[0].join(120)
        for process in self.processes[1:]:
            process.join(10)
            process.kill()
        return self.processes[0].exitcode

    def was_newest_at_its_end(self) -> bool:
        """Whether it ended before the next attempt began: its success is a true one, told too late."""
        folder, owner = Folder.at(self.where), (self.place / "begun").read_text()
        number = max(attempt.number for attempt in all_attempts(folder) if attempt.owner == owner)
        outcome, following = RunOutcome.read(folder, outcome_name(number)), Attempt.read(folder, number + 1)
        # An attempt notes when it started just before it claims its number.
        claimed = datetime.fromisoformat(following.started) + timedelta(seconds=1)
        return outcome is not None and datetime.fromisoformat(outcome.ended) < claimed

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        shutil.rmtree(self.place, ignore_errors=True)

    def _is_over(self) -> bool:
        return self.processes[0].exitcode is not None

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition() and not self._is_over():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                if process.exitcode is None:
                    os.kill(process.pid or 0, number)


def _work(
    rank: int, workers: int, place: str, job: dict[str, Any], where: str, environment: dict[str, str], stop_at: int
) -> None:
    """One process: takes the lease, as another machine would, and trains."""
    os.environ |= environment
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/met", rank=rank, world_size=workers)
    parsed = from_dict(job)
    assert isinstance(parsed, TrainJob)
    plan = Plan.make(parsed, splits(parsed, OpenedSources(parsed).decode()))
    claim = None
    if rank == 0:
        folder = Folder.at(where)
        folder.delete("lease.json")  # it is stale: its holder has slept for longer than a minute
        lease = Lease.acquire(folder)
        claim = Claim(where, lease.holder.owner)
        Path(place, "begun").write_text(lease.holder.owner)
        if stop_at:
            _stop_in(stop_at, Path(place))
    try:
        train(plan, RunFolder.open(where, claim), Group(rank, workers))
    except Superseded:
        os._exit(SUPERSEDED)
    os._exit(0)


def _stop_in(stop_at: int, place: Path) -> None:
    """Stops this process at its `stop_at`-th moment before or after it changes something in the storage."""
    from lehr.runs.stores import Disk, Objects

    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        if moments == stop_at:
            (place / "stops").touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            moment()
            result = function(*arguments, **options)
            moment()
            return result

        return changed

    for kind in (Disk, Objects):
        for name in ("write", "create", "claim", "delete", "delete_tree"):
            setattr(kind, name, around(getattr(kind, name)))
    os.replace, os.link, os.unlink = around(os.replace), around(os.link), around(os.unlink)
