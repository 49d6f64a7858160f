"""Stop signals: the first one saves and stops, a second Ctrl-C ends everything at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lehr.driver.running import Interrupted, Running


@contextmanager
def stop_signals(running: Running) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) makes the workers save and stop; another Ctrl-C ends everything at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGTERM:
            return  # the supervisor and the cluster may both send it
        if asked:
            running.screen.close()
            running.screen.say(f"Ended at once. What was saved before is kept; resume with: {running.command}")
            leave(130)
        asked = True
        if not running.training:
            raise Interrupted(f"Stopped before the first step. Start again with: {running.command}")
        running.run.request_stop(signal.Signals(number).name)
        running.screen.say("Stopping: saving a checkpoint first. Ctrl-C again ends at once.")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> None:
    """Ends this process and every process it started, at once."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(code)
