"""`time_limit`: a job that has taken as long as it may saves and stops, as with Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lehr.driver.running import Running
from lehr.durations import seconds_in
from lehr.errors import LehrError

LOOK_SECONDS = 0.2  # between two looks whether there is something to save, where nobody hears signals


@contextmanager
def time_limited(running: Running) -> Iterator[None]:
    """Asks the job to stop once it has taken as long as it may, counted from its command.

    It is told by a signal to this process, which ends what comes before the first step too, such as a download; in a
    thread, which gets none, it ends as soon as there is something to save.
    """
    limit = running.job.time_limit
    if limit is None:
        yield
        return
    over = threading.Event()
    heard = threading.current_thread() is threading.main_thread()

    def wait() -> None:
        if over.wait(max(0.0, running.started + seconds_in(limit) - time.time())):
            return
        running.out_of_time = f"stopped by its time limit of {limit}"
        if heard:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        while not running.training and not over.wait(LOOK_SECONDS):
            pass
        with suppress(LehrError):
            running.run.request_stop(running.out_of_time)

    thread = threading.Thread(target=wait, name="lehr-time-limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
