"""The broker between the trials' processes and the job's own: it hands out assignments and passes reports on.

It is plain asyncio and imports next to nothing, so that its process starts fast; `lehr.trials.on_ray` makes a Ray actor
of it. A report waits for its answer, so a trial never continues before the study has seen its epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """The metrics of an epoch of the trial in `folder`. The answer is a reason to end the trial, or None."""

    number: int
    folder: str
    row: Mapping[str, float]


class Broker:
    """Assignments for the trials, their reports, and the answers."""

    def __init__(self) -> None:
        self._assignments: dict[str, asyncio.Future[Any]] = {}
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._last = 0

    async def put(self, folder: str, assignment: Any) -> None:
        """Stores what the trial in `folder` needs until it is cleared: a trial whose process is lost gets it again."""
        self._future(folder).set_result(assignment)

    async def get(self, folder: str) -> Any:
        """Called by a trial: waits for its assignment."""
        return await asyncio.shield(self._future(folder))

    async def clear(self, folder: str) -> None:
        self._assignments.pop(folder, None)

    def _future(self, folder: str) -> asyncio.Future[Any]:
        return self._assignments.setdefault(folder, asyncio.get_running_loop().create_future())

    async def report(self, folder: str, row: Mapping[str, float]) -> str | None:
        """Called by a trial after an epoch: waits for the answer."""
        self._last += 1
        number = self._last
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._reports.put(Report(number, folder, row))
        return await self._answers[number]

    async def reports(self, seconds: float) -> list[Report]:
        """Called by the job's process: new reports; waits up to `seconds` for the first one."""
        try:
            found = [await asyncio.wait_for(self._reports.get(), seconds)]
        except TimeoutError:
            return []
        while not self._reports.empty():
            found.append(self._reports.get_nowait())
        return found

    async def answer(self, number: int, reason: str | None) -> None:
        if not (answer := self._answers.pop(number)).done():
            answer.set_result(reason)
