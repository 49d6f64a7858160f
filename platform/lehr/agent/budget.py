"""How long the jobs of an agent may run: hours in any 24, counted in a ledger that outlives the server.

A job takes its whole time from the budget when it starts, as its time limit, and gives back what it did not need when
it has ended. So the budget holds whatever happens to the server, and two servers on one storage folder share it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lehr.errors import LehrError
from lehr.formatting import format_seconds
from lehr.paths import state_folder

DAY = 86400.0
SPARE = 120.0
"""Seconds that a job may take beyond its time limit, to save and to leave."""


class OverBudget(LehrError):
    """The budget has no room for what was asked."""

    exit_code = 2


@dataclass(frozen=True)
class Entry:
    """A job that was started.

    Attributes:
        run: the name of its run.
        started, limit: when (`time.time()`), and for how long it may run, in seconds.
        process: its process id on this machine, and when that process began; 0 before it has one.
        used: seconds that it took, once it has ended.
    """

    run: str
    started: float
    limit: float
    process: int = 0
    process_began: float = 0.0
    used: float | None = None

    @property
    def spent(self) -> float:
        """What it has taken from the budget, in seconds: all it may take, until it has ended."""
        return self.limit if self.used is None else self.used


@dataclass(frozen=True)
class Budget:
    """Hours of running jobs in any 24 hours, of one storage folder.

    Attributes:
        hours: how many; 0: nothing may be started.
        storage: the folder of the runs.
    """

    hours: float
    storage: str

    @property
    def ledger(self) -> Path:
        """The file that lists what was started: a line of JSON each."""
        name = hashlib.sha256(self.storage.encode()).hexdigest()[:16]
        return state_folder("agent") / f"{name}.jsonl"

    def spent(self) -> list[Entry]:
        """What was started in the last 24 hours, oldest first. What has ended since is noted."""
        with self._locked():
            return self._entries()

    @property
    def left(self) -> float:
        """Seconds that may still be started now."""
        return max(0.0, 3600 * self.hours - sum(entry.spent for entry in self.spent()))

    def take(self, run: str, seconds: float) -> Entry:
        """Takes a job's time from the budget, before it starts. Raises OverBudget."""
        with self._locked():
            entries = self._entries()
            left = 3600 * self.hours - sum(entry.spent for entry in entries)
            if seconds > left:
                told = f"{format_seconds(max(0.0, left))} of {self.hours:g} hours in 24 are left"
                raise OverBudget(f"{run} would take up to {format_seconds(seconds)}, and {told}; ask for less")
            entry = Entry(run, time.time(), seconds)
            self._write([*entries, entry])
            return entry

    def note(self, old: Entry, new: Entry) -> None:
        """Replaces an entry."""
        with self._locked():
            self._write([new if entry == old else entry for entry in self._entries()])

    def _entries(self) -> list[Entry]:
        now = time.time()
        text = self.ledger.read_text(encoding="utf-8") if self.ledger.exists() else ""
        found = [Entry(**json.loads(line)) for line in text.splitlines()]
        known = [_ended(entry, now) for entry in found if now - entry.started < DAY]
        if known != found:
            self._write(known)
        return known

    def _write(self, entries: list[Entry]) -> None:
        text = "".join(f"{json.dumps(asdict(entry))}\n" for entry in entries)
        whole = self.ledger.with_suffix(".new")
        whole.write_text(text, encoding="utf-8")
        whole.replace(self.ledger)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.ledger.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _ended(entry: Entry, now: float) -> Entry:
    """The entry with what it used, if its process has ended since."""
    if entry.used is not None or (entry.process and _lives(entry)):
        return entry
    if not entry.process and now - entry.started < SPARE:  # it is being started
        return entry
    return replace(entry, used=min(entry.limit, now - entry.started))


def _lives(entry: Entry) -> bool:
    try:
        process = psutil.Process(entry.process)
        return abs(process.create_time() - entry.process_began) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
