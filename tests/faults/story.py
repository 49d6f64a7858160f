"""A story: one run with its accidents, restarted after each, as Ray Train or a person would, until it finishes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import torch.multiprocessing as mp

from lehr.errors import LehrError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import RunFolder, step_of
from tests.faults.accidents import Accident, damage
from tests.support import PRELOAD, Died, tiny, train_here

EVERY_EPOCH = tiny(train__early_stopping={"patience": 3}, train__averaging={"decay": 0.9})
MID_EPOCH = tiny(train__checkpoint={"every": "4step"}, model__dropout=0.2)
JOBS = {"every epoch": (EVERY_EPOCH, 6), "every 4 steps": (MID_EPOCH, 4)}
"""The job and the number of steps between two checkpoints, by how often it saves."""
PRELOAD += ["lehr.kinds.train", "lehr.curves.report", "vl_convert"]
PATIENCE = 8.0  # seconds that workers wait for each other, instead of minutes


@dataclass(frozen=True)
class AtOnce:
    """Several accidents in one attempt."""

    accidents: tuple[Accident, ...]
    takes_rank: ClassVar[bool] = True

    def __call__(self, rank: int = 0) -> None:
        for accident in self.accidents:
            accident(rank)


@dataclass
class Story:
    """How a story went.

    Attributes:
        run: the run folder at the end.
        happened: what was broken, in the order of the attempts that it ended.
        repeated: the number of repeated steps, for each of these attempts in which only processes were broken.
        sentences: the error message of each of these attempts, if it was a command of a person.
    """

    run: RunFolder
    happened: list[tuple[Accident, ...]] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def run_story(
    job: TrainJob, folder: Path, workers: int, accidents: Sequence[tuple[Accident, ...]], damaging: random.Random | None
) -> Story:
    """Runs the job with these accidents, one attempt each, until it finishes.

    Args:
        workers: 0 is the whole command `lehr run --debug` in one process; else the number of worker processes.
        damaging: draws what is damaged between two attempts; None: nothing.
    """
    story = Story(RunFolder.open(folder) if (folder / "job.yaml").exists() else None)  # type: ignore[arg-type]
    for trapped in [*accidents, ()]:
        diaries = [Path(accident.diary) for accident in trapped]
        for diary in diaries:
            diary.unlink(missing_ok=True)
        try:
            if workers:
                train_here(job, folder, workers, AtOnce(trapped), PATIENCE)
            else:
                command(job, folder, AtOnce(trapped))
        except (Died, LehrError) as error:
            happened = tuple(a for a, diary in zip(trapped, diaries, strict=True) if diary.exists())
            if not happened:
                raise
            story.happened.append(happened)
            if isinstance(error, LehrError):
                story.sentences.append(str(error))
            damaged = damage(damaging, folder) if damaging else ""
            story.damages += [damaged] if damaged else []
            if not damaged:
                taken = max(int(diary.read_text()) for diary in diaries if diary.exists())
                story.repeated.append(max(0, taken - _saved(folder)))  # 0 for an attempt that took no step
        else:
            break  # it finished, whether or not its accident found an occasion
    story.run = RunFolder.open(folder)
    return story


def _saved(folder: Path) -> int:
    """The step of the newest complete checkpoint."""
    return max((step_of(file.parent.name) for file in folder.glob("checkpoints/step-*/manifest.json")), default=0)


def command(job: TrainJob, folder: Path, prepare: Any = None) -> None:
    """`lehr run JOB --debug` in its own process: driver without Ray, lease, screen, curves and report.

    Raises:
        LehrError: the error message of the command.
        Died: it ended without a message.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe(duplex=False)
    named = to_dict(job) | {"name": folder.name, "storage": str(folder.parent)}
    process = context.Process(target=_command, args=(named, prepare, theirs))
    process.start()
    theirs.close()
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the command hangs")
    with contextlib.suppress(EOFError):
        if sentence := ours.recv():
            raise LehrError(sentence)
    if process.exitcode:
        raise Died([process.exitcode])


def _command(named: dict[str, Any], prepare: Any, answer: Connection) -> None:
    from lehr.kinds import run_job

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    job = from_dict(named)
    if prepare:
        prepare()
    try:
        run_job(job, debug=True)
        answer.send("")
    except LehrError as error:
        answer.send(str(error))


def log_story(story: Story, seed: int, workers: int) -> None:
    """Adds a story to the log of `make faults`, if the environment names its file."""
    if not (path := os.environ.get("FAULTS_LOG")):
        return
    rows = [{"what": a.what, "phase": a.phase, "at_once": len(group)} for group in story.happened for a in group]
    rows += [{"what": "checkpoint or record damaged", "phase": damaged, "at_once": 1} for damaged in story.damages]
    with open(path, "a") as file:
        entry = {"seed": seed, "workers": workers, "faults": rows, "repeated": story.repeated}
        file.write(json.dumps(entry) + "\n")
