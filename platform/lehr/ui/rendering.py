"""Reports, written on demand by a process of its own, since what draws them takes a hundred megabytes."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from lehr.errors import LehrError

What = TypeVar("What")
IDLE = 60.0  # seconds without a page after which the process ends


class Renderer:
    """Pages by what they are of; the same page is written once at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lehr-ui-")
        self._pool: ProcessPoolExecutor | None = None
        self._used = 0.0
        self._lock = asyncio.Lock()

    async def report(self, uri: str) -> str:
        """The report of a run, from its record so far. Raises LehrError where there is nothing to report."""
        return await self._page(_report, uri)

    async def comparison(self, uris: tuple[str, ...]) -> str:
        """Several runs on the same axes. Raises LehrError where they cannot be compared."""
        return await self._page(_comparison, uris)

    async def _page(self, write: Callable[[What, str], str], what: What) -> str:
        async with self._lock:  # one at a time: the machine trains
            self._used = time.monotonic()
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            with tempfile.TemporaryDirectory(dir=self._folder.name) as out:
                try:
                    problem = await asyncio.get_running_loop().run_in_executor(self._pool, write, what, out)
                except BrokenProcessPool:
                    self._pool = None
                    problem = "the process that draws pages died; try again"
                if problem:
                    raise LehrError(problem)
                return Path(out, "report.html").read_text(encoding="utf-8")

    def end_if_idle(self) -> None:
        """Ends the process if no page was asked for lately."""
        if self._pool and not self._lock.locked() and time.monotonic() - self._used > IDLE:
            self._pool.shutdown(wait=False)
            self._pool = None

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._folder.cleanup()


def _report(uri: str, out: str) -> str:
    """Writes a run's report into a folder; returns what went wrong. The run is left as it is."""
    from lehr.kinds import report_of
    from lehr.runs import Folder, RunFolder

    try:
        folder = Folder.at(uri)
        report_of(RunFolder(folder.writing_to(Folder.at(out))))
    except LehrError as error:
        return str(error)
    return "" if Path(out, "report.html").exists() else "nothing was recorded yet"


def _comparison(uris: tuple[str, ...], out: str) -> str:
    from lehr.curves import comparison
    from lehr.runs import RunFolder

    try:
        page, *_ = comparison([RunFolder.open(uri) for uri in uris])
    except LehrError as error:
        return str(error)
    Path(out, "report.html").write_text(page, encoding="utf-8")
    return ""
