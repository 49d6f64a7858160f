"""Stop signals: the first one saves and stops, a second Ctrl-C ends everything at once.

SIGHUP, which a terminal sends when it closes, counts as SIGTERM. Where it was ignored from the start, as with `nohup`,
it stays ignored.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from lehr.driver.running import Interrupted, Running
from lehr.processes import end_marked


class _Stop(BaseException):
    """The job ends here. No `Exception`, so that no code takes it for an error of what it called."""


@contextmanager
def stop_signals(running: Running) -> Iterator[None]:
    """The first Ctrl-C (SIGTERM, SIGHUP) makes the workers save and stop; another Ctrl-C ends everything at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number != signal.SIGINT:
            return  # the supervisor and the cluster may both send one, and a shell passes a hangup on
        if asked:
            running.screen.close()
            running.screen.say(f"Ended at once. What was saved before is kept; resume with: {running.command}")
            leave(130)
        asked = True
        if not running.training:
            running.interrupted = f"{running.stopped} before the first step. Start again with: {running.command}"
            raise _Stop
        running.run.request_stop(running.out_of_time or signal.Signals(number).name)
        # In another thread, since the signal may have interrupted a line that is being written.
        why = f" ({running.out_of_time})" if running.out_of_time else ""
        said = f"Stopping{why}: saving a checkpoint first. Ctrl-C again ends at once."
        threading.Thread(target=running.screen.say, args=(said,), name="lehr-stopping").start()

    stopping = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stopping.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in stopping}
    try:
        yield
    except _Stop:
        raise Interrupted(running.interrupted) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> None:
    """Ends this process and every process it started, at once."""
    import psutil

    if hasattr(signal, "SIGURG"):  # the watch over Ray must not take what is killed here for a loss
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    end_marked()  # those whose parent died first
    os._exit(code)


def finish(code: int) -> NoReturn:
    """Ends this process after its exit functions, without taking its modules apart.

    Threads of Ray and torch may still run then, and have crashed (SIGSEGV) in an interpreter that is being taken apart.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a terminal that is closed
            stream.flush()
    os._exit(code)
