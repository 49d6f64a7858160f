"""Accidents: what happens to one training process, in which phase, and on which occasion.

An accident depends only on a seed, so `FAULT=117` repeats the one with seed 117. It is sent into the process and waits
there for the operation that it strikes. A disk write is cut in the middle, with half of its bytes in the file and
nothing else, which is what a power cut leaves.
"""

from __future__ import annotations

import os
import random
import resource
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

NOBODY = 65534
PHASES = {
    "start": "before the data are read",
    "mid-step": "between a batch and its optimizer step",
    "mid-report": "half-way through writing a record, an event or the progress",
    "mid-checkpoint": "half-way through writing, replacing or removing a file of a checkpoint",
    "end": "half-way through writing the final model",
}
WHAT = {
    "killed": "SIGKILL",
    "hung": "SIGSTOP: the process exists and does nothing",
    "disk full": "from then on not one more byte can be written",
    "permission lost": "the process loses the right to write to the run folder",
}
ROOMS = {
    "mid-report": ("/steps/", "/epochs/", "/events/", "/attempts/", "progress.json"),
    "mid-checkpoint": ("/checkpoints/",),
    "end": ("/model/",),
}
OCCASIONS = {"start": 1, "mid-step": 24, "mid-report": 14, "mid-checkpoint": 30, "end": 4}
"""Roughly how many occasions a phase of the tiny job has; the accident picks one of them."""


@dataclass(frozen=True)
class Accident:
    """What happens to the worker `rank` the `occasion`-th time (from 1) that it reaches `phase`.

    Attributes:
        diary: the file in which the process notes, before its accident, how many steps it had taken.
    """

    what: str
    phase: str
    occasion: int
    rank: int
    diary: str = ""
    takes_rank: ClassVar[bool] = True

    def __call__(self, rank: int = 0) -> None:
        """Sets the trap in this process."""
        if rank != self.rank:
            return
        trap = _Trap(self)
        if self.phase == "start":
            trap.passed()
        elif self.phase == "mid-step":
            _before_steps(trap)
        else:
            _in_writes(trap, ROOMS[self.phase])

    def __str__(self) -> str:
        return f"{self.what} in {self.phase} ({self.occasion}), worker {self.rank}"


class _Trap:
    def __init__(self, accident: Accident) -> None:
        self.accident, self.times, self.taken = accident, 0, 0

    def passed(self, half: Callable[[], None] = lambda: None) -> None:
        """Called on each occasion. `half` does half of the operation, for accidents in the middle of it."""
        self.times += 1
        if self.times == self.accident.occasion:
            unfinished = Path(f"{self.accident.diary}.new")  # another accident may end this process meanwhile
            unfinished.write_text(str(self.taken))
            unfinished.replace(self.accident.diary)
            half()
            _strike(self.accident.what)


def _strike(what: str) -> None:
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hung":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # Python ignores the signal that this sends
    elif what == "permission lost":
        os.setresuid(NOBODY, NOBODY, NOBODY)
    else:
        raise ValueError(what)


def _before_steps(trap: _Trap) -> None:
    from lehr.training.train_step import TrainStep

    take = TrainStep.__call__

    def take_or_not(self: TrainStep, batch: object, rows: int, step: int) -> object:
        trap.taken = step
        trap.passed()
        return take(self, batch, rows, step)  # type: ignore[arg-type]

    TrainStep.__call__ = take_or_not  # type: ignore[method-assign, assignment]


def _in_writes(trap: _Trap, rooms: tuple[str, ...]) -> None:
    """Counts file operations in these rooms of the run folder, and strikes in the middle of one."""
    from lehr.runs.stores import Disk
    from lehr.training.train_step import TrainStep

    temporary, replace, unlink, take = Disk._temporary, os.replace, Path.unlink, TrainStep.__call__

    def write(self: Disk, path: str, data: bytes) -> str:
        if any(room in path for room in rooms):
            trap.passed(lambda: _write_half(path, data))
        return temporary(self, path, data)

    def rename(source: str, target: str) -> None:
        if any(room in str(target) for room in rooms):
            trap.passed()
        replace(source, target)

    def remove(self: Path, missing_ok: bool = False) -> None:
        if "/checkpoints/" in str(self) and "/checkpoints/" in rooms and self.exists():
            trap.passed()
        unlink(self, missing_ok)

    def note(self: TrainStep, batch: object, rows: int, step: int) -> object:
        trap.taken = step + 1
        return take(self, batch, rows, step)  # type: ignore[arg-type]

    Disk._temporary, os.replace, Path.unlink = write, rename, remove  # type: ignore[method-assign, assignment]
    TrainStep.__call__ = note  # type: ignore[method-assign, assignment]


def _write_half(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    Path(folder, f".{name}.{secrets.token_hex(6)}.tmp").write_bytes(data[: len(data) // 2])


def accident(draw: random.Random, workers: int, diary: Path) -> Accident:
    """A random accident for a run with this many workers. Only a worker that others wait for is found to hang."""
    whats = [what for what in WHAT if (what != "hung" or workers > 1) and (what != "permission lost" or is_root())]
    what = draw.choices(whats, [6 if what == "killed" else 1 for what in whats])[0]
    phase = draw.choice([phase for phase in PHASES if what in ("killed", "hung") or phase != "start"])
    rank = draw.randrange(workers) if phase in ("start", "mid-step") and what in ("killed", "hung") else 0
    return Accident(what, phase, draw.randint(1, OCCASIONS[phase]), rank, str(diary))


def two_at_once(draw: random.Random, workers: int, diaries: tuple[Path, Path]) -> tuple[Accident, Accident]:
    """Two workers struck at the same moment. Both reach it, since no worker is a step ahead of another."""
    phase = draw.choice(["start", "mid-step"])
    occasion, (one, other) = draw.randint(1, OCCASIONS[phase]), draw.sample(range(workers), 2)
    what = draw.choice(["killed", "hung"])
    return (
        Accident(what, phase, occasion, one, str(diaries[0])),
        Accident("killed", phase, occasion, other, str(diaries[1])),
    )


# ── what happens to files between two attempts ────────────────────────────────────────────────────────────────────

DAMAGES = ("truncated", "a bit flipped", "emptied", "gone", "replaced by noise")


def damage(draw: random.Random, run: Path) -> str:
    """Damages a file of the newest checkpoint, or one that is only displayed; returns which file and how."""
    checkpoints = sorted((run / "checkpoints").glob("step-*")) if (run / "checkpoints").exists() else []
    newest = [file for file in checkpoints[-1].iterdir() if not file.name.startswith(".")] if checkpoints else []
    shown = [file for name in ("progress.json", "lease.json") if (file := run / name).exists()]
    if not (files := sorted(newest) * 2 + shown):
        return ""
    file = draw.choice(files)
    # A flipped bit may turn a lease into another machine's, which holds it for a minute: correct, but slow for a test.
    how = draw.choice([how for how in DAMAGES if file.name != "lease.json" or how != "a bit flipped"])
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
        return f"{file.relative_to(run)} {how}"
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "a bit flipped" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif how == "emptied":
        content.clear()
    else:
        content[:] = draw.randbytes(len(content))
    file.write_bytes(content)
    return f"{file.relative_to(run)} {how}"


def is_root() -> bool:
    return os.geteuid() == 0
