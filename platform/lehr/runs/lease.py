"""One writer per run folder: a lease that is renewed while its process lives.

`lease.json` names the holder, who renews it every `BEAT_SECONDS`. A lease is stale when it was not renewed for
`STALE_SECONDS`, and as soon as its process is known to be dead. On a disk a file lock makes taking and renewing atomic,
so exactly one of any number of racing processes wins. An object store has no locks: there a process writes its name,
waits, and checks that it is still there. If two slip through nevertheless, the next renewal tells one of them that it
has lost.
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
from pathlib import Path
from types import TracebackType
from typing import IO

from lehr.errors import LehrError, RunError, RunHeld, StorageError
from lehr.runs.attempts import newest_number
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now, seconds_since

try:
    import fcntl
except ImportError:  # no POSIX locks here: a disk is treated as an object store
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 1.0  # how long a process waits on an object store before it checks who won
LOCK_SECONDS = 20.0  # how long to wait for others that are taking or renewing the lease

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
            seconds_since(holder.heartbeat)
        except (FileNotFoundError, RunError, KeyError, TypeError, ValueError):
            return None
        return holder

    def write(self, folder: Folder) -> None:
        """Replaces lease.json."""
        folder.write_json(_NAME, asdict(self))

    def is_alive(self) -> bool:
        """Whether its heartbeat is fresh and its process is not known to be dead."""
        if seconds_since(self.heartbeat) > STALE_SECONDS:
            return False
        return self.machine != this_machine() or is_running(self.pid, self.process_started)

    def __str__(self) -> str:
        return (
            f"{self.user} on {self.host} (process {self.pid}), since {self.taken[:19].replace('T', ' ')} UTC, "
            f"last heartbeat {seconds_since(self.heartbeat):.0f} s ago"
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
    def acquire(cls, folder: Folder, *, on_lost: Callable[[], None] | None = None) -> Lease:
        """Takes a free or stale lease, and renews it in a thread.

        `on_lost` is called once, in that thread, when another process has taken over.
        Raises `RunHeld`, which says who holds the lease and what to do.
        """
        moment = now()
        holder = Holder(
            owner=secrets.token_hex(16),
            user=_user(),
            host=platform.node(),
            machine=this_machine(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()),
            attempt=newest_number(folder),
            taken=moment,
            heartbeat=moment,
        )
        if folder.is_local:
            _make(folder)
        with _locked(folder) as locked:
            _refuse_if_held(folder, by_others_than=holder.owner)
            holder.write(folder)
            if not locked:
                time.sleep(SETTLE_SECONDS)
                _refuse_if_held(folder, by_others_than=holder.owner)
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


def this_machine() -> str:
    """A name for one boot of one machine and its process namespace, since each container numbers its own processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _process(pid: int) -> tuple[str, int | None]:
    """State letter and start time, in clock ticks since boot, of a process; ("?", None) where the system hides them."""
    try:
        # The fields after the command's name, which is in parentheses and may hold any character.
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return values[0], int(values[19])
    except OSError:
        return "?", None


def process_started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None where the system hides it."""
    return _process(pid)[1]


def is_running(pid: int, started: int | None) -> bool:
    """False only if the process is known to be dead. /proc alone does not tell: it may hide other users' processes."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # alive, but not ours to signal
    state, actual = _process(pid)
    return state not in "ZX" and (actual is None or started is None or actual == started)


def _refuse_if_held(folder: Folder, *, by_others_than: str) -> None:
    holder = Holder.read(folder)
    if holder is not None and holder.owner != by_others_than and holder.is_alive():
        raise RunHeld(
            f"{folder.uri}: is being written by {holder}; wait until it is done, or end that process: the run is free "
            f"{STALE_SECONDS:.0f} s after the last heartbeat"
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
