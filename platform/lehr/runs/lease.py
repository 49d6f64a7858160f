"""One writer per run folder: a lease that is renewed while its process lives.

`lease.json` names the holder, who renews it every `BEAT_SECONDS`. A lease is stale as soon as its process is known to
be dead, and otherwise once whoever wants it has seen its heartbeat stand still for `STALE_SECONDS` of its own time.
Clocks of two machines are never compared for that: they only tell whether a heartbeat looks fresh, which refuses at
once, or must be watched.

On a disk a file lock makes taking and renewing atomic, so exactly one of any number of racing processes wins. An object
store has no locks: there a process writes its name, waits, and checks that it is still there. If two slip through
nevertheless, the next renewal tells one of them that it has lost.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from lehr.errors import LehrError, RunError, RunHeld, StorageError
from lehr.processes import Process, is_running, this_machine, this_process
from lehr.runs.attempts import newest_number
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now

try:
    import fcntl
except ImportError:  # no POSIX locks here: a disk is treated as an object store
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 1.0  # how long a process waits on an object store before it checks who won
LOCK_SECONDS = 20.0  # how long to wait for others that are taking or renewing the lease
WATCH_SECONDS = 1.0  # how often to look at a heartbeat that may stand still

_NAME = "lease.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """`lease.json`: who writes to a run folder. Times are UTC, ISO 8601.

    Attributes:
        owner: random, new for every lease.
        user, host: for people.
        machine: one boot of one machine or container, within which process ids can be compared.
        pid, process_started: the process, and when it was started in clock ticks since boot, since process ids are
            reused; None where the system does not say.
        attempt: the newest one; 0 before the first.
        taken: when the lease was taken.
        heartbeat: when it was last renewed.
    """

    owner: str
    user: str
    host: str
    machine: str
    pid: int
    process_started: int | None
    attempt: int
    taken: str
    heartbeat: str

    @classmethod
    def read(cls, folder: Folder) -> Holder | None:
        """Who holds or held the run folder; None if nobody does, or the file is damaged and so tells nothing."""
        try:
            value = folder.read_json(_NAME)
            holder = cls(**{field.name: value[field.name] for field in fields(cls)})
            holder.age()
            texts = (holder.owner, holder.user, holder.host, holder.machine, holder.taken)
            whole = isinstance(holder.pid, int) and isinstance(holder.process_started, int | None)
        except (FileNotFoundError, RunError, KeyError, TypeError, ValueError):
            return None
        return holder if whole and all(isinstance(text, str) for text in texts) else None

    def write(self, folder: Folder) -> None:
        """Replaces lease.json."""
        folder.write_json(_NAME, asdict(self))

    def age(self) -> float:
        """Seconds since the last heartbeat, by this machine's clock; negative if it lies in the future."""
        return (datetime.fromisoformat(now()) - datetime.fromisoformat(self.heartbeat)).total_seconds()

    def is_dead(self) -> bool:
        """Whether its process is known to be dead; of another machine, boot or container nothing is known."""
        return not is_running(Process.at(self.machine, self.pid, self.process_started))

    def is_fresh(self) -> bool:
        """Whether the heartbeat is recent by this machine's clock, so that nobody needs to watch it."""
        return 0 <= self.age() <= STALE_SECONDS

    def is_alive(self) -> bool:
        """Whether it seems to be alive, without waiting: not known to be dead, and its heartbeat is not old.

        Only for showing: where the other machine's clock is wrong, so may be this.
        """
        return self.age() <= STALE_SECONDS and not self.is_dead()

    def __str__(self) -> str:
        age = self.age()
        beat = f"{age:.0f} s ago" if age >= 0 else f"{-age:.0f} s in the future by this machine's clock"
        return (
            f"{self.user} on {self.host} (process {self.pid}), since {self.taken[:19].replace('T', ' ')} UTC, "
            f"last heartbeat {beat}"
        )


class Lease:
    """The right to write to a run folder. `Lease.acquire` takes one; use it as a context manager or `release()` it.

    Attributes:
        holder: this process, as lease.json names it.
        lost: set once another process has taken the run folder; the writer should stop.
    """

    def __init__(self, folder: Folder, holder: Holder, on_lost: Callable[[], None] | None) -> None:
        self.folder, self.holder = folder, holder
        self.lost = threading.Event()
        self._on_lost = on_lost
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_done, name="lehr-lease", daemon=True)

    @classmethod
    def acquire(
        cls,
        folder: Folder,
        *,
        on_lost: Callable[[], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Lease:
        """Takes a free or stale lease, and renews it in a thread.

        Where only watching tells whether the holder is alive, this takes up to `STALE_SECONDS`.

        Args:
            on_lost: called once, in that thread, when another process has taken over.
            say: called before watching, with a sentence that says why this takes a while.

        Raises:
            RunHeld: another process holds the lease; the sentence says who, and what to do.
        """
        stale = _replaceable(folder, say)
        moment, this = now(), this_process()
        holder = Holder(
            owner=secrets.token_hex(16),
            user=_user(),
            host=platform.node(),
            machine=this_machine(),
            pid=this.pid,
            process_started=this.started,
            attempt=newest_number(folder),
            taken=moment,
            heartbeat=moment,
        )
        if folder.is_local:
            _make(folder)
        with _locked(folder) as locked:
            _refuse_if_held(folder, stale)
            holder.write(folder)
            if not locked:
                time.sleep(SETTLE_SECONDS)
                _refuse_if_held(folder, holder)
        lease = cls(folder, holder, on_lost)
        lease._thread.start()
        return lease

    def beat(self) -> None:
        """Renews the lease, or finds it lost. The thread calls this; call it before something irrevocable too."""
        if self._run_is_gone():
            return
        with _locked(self.folder):
            current = Holder.read(self.folder)
            if current is None:
                return  # deleted, with the run or by hand to free it: another process may have it
            if current.owner == self.holder.owner:
                self.holder = replace(self.holder, heartbeat=now(), attempt=newest_number(self.folder))
                self.holder.write(self.folder)
                return
        if not self.lost.is_set():
            self.lost.set()
            _LOG.error("%s: the run folder was taken over by %s", self.folder.uri, current)
            if self._on_lost is not None:
                self._on_lost()

    @property
    def released(self) -> bool:
        """Whether this process gave it back."""
        return self._done.is_set()

    def release(self) -> None:
        """Gives the lease back. Does nothing the second time, or once the lease is lost."""
        if self._done.is_set():
            return
        self._done.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._run_is_gone():
            return
        try:
            with _locked(self.folder):
                current = Holder.read(self.folder)
                if current is not None and current.owner == self.holder.owner:
                    self.folder.delete(_NAME)
        except LehrError as error:  # no reason to fail a run that is done: the lease will be stale soon
            _LOG.warning("could not give the lease back: %s", error)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _run_is_gone(self) -> bool:
        """Whether the folder was deleted; on a disk, taking the lock would create it again."""
        return self.folder.is_local and not self.folder.local_path.exists()

    def _beat_until_done(self) -> None:
        while not self.lost.is_set() and not self._done.wait(BEAT_SECONDS):
            try:
                self.beat()
            except LehrError as error:  # the storage may recover before the lease is stale
                _LOG.warning("could not renew the lease: %s", error)


class Watch:
    """How long this process has seen the heartbeat of each lease stand still, by its own clock.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[Holder, float, float]] = {}  # by URI: the lease, seconds, when looked at last

    def seconds(self, folder: Folder, holder: Holder) -> float:
        """For how long this lease, as it was read just now, is known to stand still."""
        before, seconds, last = self._seen.get(folder.uri, (holder, 0.0, self._clock()))
        moment = self._clock()
        # After a longer gap this process may have been stopped, and then so may have been the other one.
        seconds = seconds + min(moment - last, BEAT_SECONDS) if _same(before, holder) else 0.0
        self._seen[folder.uri] = (holder, seconds, moment)
        return seconds


_WATCH, _sleep = Watch(), time.sleep


def _replaceable(
    folder: Folder,
    say: Callable[[str], None] | None,
) -> Holder | None:
    """The lease that may be replaced: that of a dead process, or one whose heartbeat stood still. None: there is none.

    Raises:
        RunHeld: its heartbeat looks fresh, or moved meanwhile.
    """
    first = Holder.read(folder)
    if first is None or first.is_dead():
        return first
    seen = _WATCH.seconds(folder, first)
    if seen < STALE_SECONDS and first.is_fresh():
        raise _held(folder, first)
    if say and seen < STALE_SECONDS:
        say(
            f"{folder.name} is held by {first}; watching for {STALE_SECONDS - seen:.0f} s whether that process lives, "
            "since clocks do not tell"
        )
    while seen < STALE_SECONDS:
        _sleep(WATCH_SECONDS)
        holder = Holder.read(folder)
        if holder is None or holder.is_dead():
            return holder
        if not _same(holder, first):
            raise _held(folder, holder)
        seen = _WATCH.seconds(folder, holder)
    return first


def _same(one: Holder, other: Holder) -> bool:
    """Whether a lease was not renewed and did not change hands."""
    return (one.owner, one.heartbeat) == (other.owner, other.heartbeat)


def _refuse_if_held(folder: Folder, replaceable: Holder | None) -> None:
    """Raises RunHeld if somebody holds the lease but the `replaceable` one, or a process that is known to be dead."""
    holder = Holder.read(folder)
    if holder is not None and not (replaceable and _same(holder, replaceable)) and not holder.is_dead():
        raise _held(folder, holder)


def _held(folder: Folder, holder: Holder) -> RunHeld:
    return RunHeld(
        f"{folder.uri}: is being written by {holder}; wait until it is done, or end that process: the run is free "
        f"once its heartbeat has stood still for {STALE_SECONDS:.0f} s"
    )


def _make(folder: Folder) -> None:
    try:
        folder.local_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder.uri}: cannot create this folder: {error.strerror}") from error


@contextlib.contextmanager
def _locked(folder: Folder) -> Iterator[bool]:
    """Holds the folder's file lock; yields whether the file system has locks."""
    if fcntl is None or not folder.is_local:
        yield False
        return
    path, deadline = folder.local_path / ".lease.lock", time.monotonic() + LOCK_SECONDS
    try:
        while (lock := _try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise RunHeld(f"{folder.uri}: its lease has been locked for {LOCK_SECONDS:.0f} s; try again later")
            time.sleep(0.01)
    except OSError as error:
        raise StorageError(f"{folder.uri}: cannot take its lease: {error.strerror}") from error
    with lock[0]:  # closing the file unlocks it
        yield lock[1]


def _try_lock(path: Path) -> tuple[IO[bytes], bool] | None:
    """The open file and whether it is locked (some file systems have no locks); None if another process locked it."""
    file = open(path, "ab")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The run folder may have been deleted meanwhile: a lock on a deleted file excludes nobody.
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file, True
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks
        return file, False
    file.close()
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
