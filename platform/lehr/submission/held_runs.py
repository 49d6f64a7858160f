"""Waits for a run folder that another process holds, which on a cluster is most often a driver that died.

A driver that died with its machine cannot give its lease back, so the next attempt waits until the lease has expired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lehr.errors import RunHeld
from lehr.runs.lease import STALE_SECONDS

WAIT_SECONDS = 2.5 * STALE_SECONDS
POLL_SECONDS = 5.0

T = TypeVar("T")


def when_free(run: Callable[[], T]) -> T:
    """Calls `run`, again and again while another process holds the run folder. Raises RunHeld after `WAIT_SECONDS`."""
    started = time.monotonic()
    while True:
        try:
            return run()
        except RunHeld as held:
            if time.monotonic() - started > WAIT_SECONDS:
                raise
            print(f"{held}; waiting for its lease to expire", flush=True)
            time.sleep(POLL_SECONDS)
