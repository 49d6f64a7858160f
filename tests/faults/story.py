"""A story is one run with its accidents: started again after each, as Ray Train or a person would, until it ends."""

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
from lehr.runs import RunFolder
from tests.faults.accidents import Accident, damage
from tests.support import PRELOAD, Died, tiny, train_here

EVERY_EPOCH = tiny(train__early_stopping={"patience": 3}, train__averaging={"decay": 0.9})
MID_EPOCH = tiny(train__checkpoint={"every": "4step"}, model__dropout=0.2)
JOBS = {"every epoch": (EVERY_EPOCH, 6), "every 4 steps": (MID_EPOCH, 4)}
"""The job, and how many steps lie between two checkpoints, by when it saves."""
PRELOAD += ["lehr.kinds.train", "lehr.curves.report", "vl_convert"]
PATIENCE = 8.0  # seconds that workers wait for each other here, instead of minutes


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
    """How it went.

    Attributes:
        run: the run folder at the end.
        happened: what was broken, in the order of the attempts that ended by it.
        repeated: steps that were taken again, for each of these where nothing but a process was broken.
        sentences: what a person was told for each of these, where a person's command ended by it.
    """

    run: RunFolder
    happened: list[tuple[Accident, ...]] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def live(
    job: TrainJob, folder: Path, workers: int, accidents: Sequence[tuple[Accident, ...]], damaging: random.Random | None
) -> Story:
    """Runs the job with these accidents, one attempt each, to its end.

    Args:
        workers: 0 is the whole command `lehr run --debug` in a process; else so many worker processes.
        damaging: draws what is damaged between two attempts; None: nothing is.
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
            told = damage(damaging, folder) if damaging else ""
            story.damages += [told] if told else []
            if not told:
                taken = max(int(diary.read_text()) for diary in diaries if diary.exists())
                story.repeated.append(max(0, taken - _saved(folder)))  # 0 of an attempt that took no step
        else:
            break  # it is finished, whether or not its accident found an occasion
    story.run = RunFolder.open(folder)
    return story


def _saved(folder: Path) -> int:
    """The step of the newest complete checkpoint."""
    return max((int(file.parent.name[5:]) for file in folder.glob("checkpoints/step-*/manifest.json")), default=0)


def command(job: TrainJob, folder: Path, prepare: Any = None) -> None:
    """`lehr run JOB --debug` in a process of its own, with a Ray-less driver, lease, screen, curves and report.

    Raises:
        LehrError: what the command says at its end.
        Died: it ended without a word.
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


def _command(named: dict[str, Any], prepare: Any, told: Connection) -> None:
    from lehr.kinds import run_job

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    job = from_dict(named)
    if prepare:
        prepare()
    try:
        run_job(job, debug=True)
        told.send("")
    except LehrError as error:
        told.send(str(error))


def note(story: Story, seed: int, workers: int) -> None:
    """Adds a story to the table that `make faults` ends with, where the environment names a file for it."""
    if not (path := os.environ.get("FAULTS_LOG")):
        return
    rows = [{"what": a.what, "phase": a.phase, "at_once": len(group)} for group in story.happened for a in group]
    rows += [{"what": "checkpoint or record damaged", "phase": told, "at_once": 1} for told in story.damages]
    with open(path, "a") as file:
        entry = {"seed": seed, "workers": workers, "faults": rows, "repeated": story.repeated}
        file.write(json.dumps(entry) + "\n")
