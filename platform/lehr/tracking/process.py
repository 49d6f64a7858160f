"""The processes that write a run to its trackers while it goes on, one for each."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from lehr.runs import RunFolder
from lehr.tracking.copying import asleep

FOLLOWING = "LEHR_FOLLOWING"
"""Set for a process that a job has started, whose standard input closes with the job."""
WAIT = 20.0
"""Seconds that a job waits at its end until a tracker has everything; what is missing then, `lehr track` writes."""


@contextmanager
def tracked(
    run: RunFolder, names: Sequence[str], say: Callable[[str], None], status: Callable[[str], None]
) -> Iterator[None]:
    """Writes the run to the trackers while the block runs, and tells in a line what a tracker did not get.

    Args:
        say: shows a line.
        status: shows what is being waited for.
    """
    started = [_Follower(run, name) for name in dict.fromkeys(names)]
    try:
        yield
    finally:
        for follower in started:
            follower.end()
        deadline = time.monotonic() + (WAIT if run.folder.exists("job.yaml") else 0)  # a mistake leaves no run
        for follower in started:
            if not follower.is_done:
                status(f"waiting until {follower.name} has everything …")
            if (problem := follower.finish(deadline)) and run.folder.exists("job.yaml"):
                say(f"tracking: {problem}; the run is not affected. To go on: {_command(run, follower.name)}")


def _command(run: RunFolder, name: str) -> str:
    where = str(run.folder.local_path) if run.folder.is_local else run.folder.uri
    return f"lehr track {where} --to {name}"


class _Follower:
    """`lehr track RUN --to NAME --follow` in a process of its own. Its standard input closes once the job has ended."""

    def __init__(self, run: RunFolder, name: str) -> None:
        self.name = name
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this object
        # A session of its own: the Ctrl-C of a terminal is the run's affair, which then ends by itself.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lehr", "track", run.folder.uri, "--to", name, "--follow"],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, FOLLOWING: "1"},
        )

    def end(self) -> None:
        """Says that nobody writes the run any more."""
        if self._process.stdin:
            self._process.stdin.close()

    @property
    def is_done(self) -> bool:
        return self._process.poll() is not None

    def finish(self, deadline: float) -> str:
        """Waits until it has ended, no longer than the deadline; returns what went wrong."""
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            return f"{self.name} did not take everything within {WAIT:g} s"
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()
        return f"{last[-1] if last else f'{self.name} ended with exit code {code}'}" if code else ""


def job_has_ended(seconds: float) -> bool:
    """Waits for some seconds, in a process that a job has started; whether the job has ended, or is gone."""
    if FOLLOWING not in os.environ:
        return asleep(seconds)
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1)
