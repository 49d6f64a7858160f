"""Who a process is, and what it left behind.

A process is named by the boot and the namespace that number it, its id, and when it was started in ticks since boot.

A process id alone is reused, and every container numbers its own processes. A start time by the wall clock moves when
the clock is set. The ticks since boot, which `/proc` shows, do not.

Nothing is known here of processes on another machine, in another boot, or in another namespace: they are never called
dead, and never found to be the one that was meant.

What a process starts within `marked_children` carries its name in the environment, with all that descends from it,
whatever becomes of the processes between. So it can be found and ended, at the end or by a later process.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "LEHR_STARTED_FOR"
"""The environment variable that names the process for which a process was started."""
# It is not LEHR_DRIVER, as in version 0.1, which ends whatever has a name there that it cannot read.

_TEXT = re.compile(r"(\d+)-(\d+|unknown)-([0-9a-f]{16})")
_FIRST_TIME_NAMESPACE = "time:[4026531834]"  # PROC_TIME_INIT_INO, fixed in Linux


@dataclass(frozen=True)
class Process:
    """One process, for as long as anything remembers it.

    Attributes:
        machine: one boot of one machine or container, within which ids and ticks can be compared, as a digest.
        pid: its id there.
        started: clock ticks from the boot to its start; None where the system does not say.
    """

    machine: str
    pid: int
    started: int | None

    @classmethod
    def at(cls, machine: str, pid: int, started: int | None) -> Process:
        """The process of a machine that `this_machine` named."""
        return cls(hashlib.sha256(machine.encode()).hexdigest()[:16], pid, started)

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """The process that `str` wrote; None for any other text."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        return cls(found[3], int(found[1]), None if found[2] == "unknown" else int(found[2]))

    def __str__(self) -> str:
        """Letters, digits and hyphens, so that it can be part of a file's name: `4711-98023-0123456789abcdef`."""
        return f"{self.pid}-{'unknown' if self.started is None else self.started}-{self.machine}"


class Processes:
    """The processes that this process can see.

    Args:
        proc: where the system shows them.
        signal: sends a signal to a process id; signal 0 only asks whether it exists.
    """

    def __init__(self, proc: Path = Path("/proc"), signal: Callable[[int, int], None] = os.kill) -> None:
        self._proc, self._signal = proc, signal

    def machine(self) -> str:
        """A name for this boot of this machine, and for the namespaces that number its processes and its ticks."""
        try:
            boot = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
            namespace = os.readlink(self._proc / "self/ns/pid")
        except OSError:
            return platform.node()
        try:
            clock = os.readlink(self._proc / "self/ns/time")
        except OSError:  # Linux before 5.6 has one clock for all
            clock = _FIRST_TIME_NAMESPACE
        return "/".join([boot, namespace, *([clock] if clock != _FIRST_TIME_NAMESPACE else [])])

    def this(self) -> Process:
        """The process that asks."""
        return Process.at(self.machine(), os.getpid(), self._stat("self", os.getpid())[1])

    def one(self, pid: int) -> Process:
        """The process that has this id here now."""
        return Process.at(self.machine(), pid, self._stat(str(pid), pid)[1])

    def is_running(self, process: Process) -> bool:
        """False only if the process is known to be dead."""
        if os.name != "posix" or process.machine != self._here():
            return True
        try:
            self._signal(process.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass  # alive, but not ours to signal
        state, started = self._stat(str(process.pid), process.pid)
        return state not in "ZX" and (started is None or process.started is None or started == process.started)

    def is_here(self, process: Process) -> bool:
        """True only if the process is known to run here: then its id means that process, and may be sent a signal."""
        if process.machine != self._here() or process.started is None:
            return False
        state, started = self._stat(str(process.pid), process.pid)
        return state not in "ZX" and started == process.started

    def _here(self) -> str:
        return Process.at(self.machine(), 0, None).machine

    def _stat(self, entry: str, pid: int) -> tuple[str, int | None]:
        """State letter and start time of a process; ("?", None) where the system hides them."""
        try:
            # The fields after the command's name, which is in parentheses and may hold any character.
            values = (self._proc / entry / "stat").read_bytes().rpartition(b")")[2].split()
            if entry == "self" or os.readlink(self._proc / "self") == str(os.getpid()):
                return values[0].decode(), int(values[19])
            return "?", None  # this /proc numbers the processes of another namespace
        except (OSError, IndexError, ValueError):
            return ("?", None) if (self._proc / "self").exists() else ("?", _without_proc(pid))


def this_machine() -> str:
    """A name for one boot of one machine and the namespace of its process ids; see `Processes.machine`."""
    return _HERE.machine()


def this_process() -> Process:
    """The process that asks."""
    return _HERE.this()


def process(pid: int) -> Process:
    """The process that has this id here now."""
    return _HERE.one(pid)


def is_running(process: Process) -> bool:
    """False only if the process is known to be dead: True also for one on another machine or in another container."""
    return _HERE.is_running(process)


def is_here(process: Process) -> bool:
    """True only if the process is known to run here, so that its id may be sent a signal."""
    return _HERE.is_here(process)


@contextmanager
def marked_children() -> Iterator[None]:
    """Every process that this process starts within this context is marked, with all that descend from it."""
    # Without SPT_NOENV, setproctitle, which Ray's agents use, overwrites the environment with the title.
    names = {MARK: str(this_process()), "SPT_NOENV": "1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_orphans() -> list[int]:
    """Kills the marked processes that this process can see and whose own is known to be dead; returns their ids.

    Those of a process in another container are left alone, since nothing is known of it here.
    """
    return _end(lambda owner: not is_running(owner))


def end_marked(patience: float = 0.0) -> list[int]:
    """Kills the marked processes of this process that have not ended after `patience` seconds; returns their ids."""
    this = this_process()
    return _end(lambda owner: owner == this, patience)


def _end(unwanted: Callable[[Process], bool], patience: float = 0.0) -> list[int]:
    import psutil

    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended meanwhile, or belongs to another user
            owner = Process.parse(each.environ().get(MARK, ""))
            if owner and each.pid != os.getpid() and unwanted(owner):
                found.append(each)
    if patience:
        found = psutil.wait_procs(found, timeout=patience)[1]
    for each in found:
        with suppress(psutil.Error):
            each.kill()  # psutil checks that it is still the same process
    psutil.wait_procs(found, timeout=5)
    return [each.pid for each in found]


def _without_proc(pid: int) -> int | None:
    """On macOS, which has no /proc and keeps each start time as it was noted: hundredths of a second since 1970."""
    try:
        import psutil

        return round(psutil.Process(pid).create_time() * 100)
    except Exception:  # no psutil here, or no such process
        return None


_HERE = Processes()
