"""Where trials in other processes fetch their work and ask about their epochs; the job's own process answers.

Plain asyncio that imports next to nothing, so its process starts fast; `lehr.trials.on_ray` makes a Ray actor of it. A
question waits until it is answered, so a trial never goes on before the study has taken in its epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """What an epoch of the trial in `folder` measured. The answer is the reason to end the trial, or None."""

    number: int
    folder: str
    row: Mapping[str, float]


class Broker:
    """Work for the trials, their questions, and the answers."""

    def __init__(self) -> None:
        self._work: dict[str, asyncio.Future[Any]] = {}
        self._asked: asyncio.Queue[Question] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._last = 0

    async def lay_out(self, folder: str, work: Any) -> None:
        """Leaves what the trial in `folder` needs until it is cleared: a trial whose process is lost takes it again."""
        self._place(folder).set_result(work)

    async def take(self, folder: str) -> Any:
        """Called by a trial: waits for its work."""
        return await asyncio.shield(self._place(folder))

    async def clear(self, folder: str) -> None:
        self._work.pop(folder, None)

    def _place(self, folder: str) -> asyncio.Future[Any]:
        return self._work.setdefault(folder, asyncio.get_running_loop().create_future())

    async def ask(self, folder: str, row: Mapping[str, float]) -> str | None:
        """Called by a trial: waits for the answer."""
        self._last += 1
        number = self._last
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._asked.put(Question(number, folder, row))
        return await self._answers[number]

    async def questions(self, seconds: float) -> list[Question]:
        """Called by the job's process: what was asked; waits up to so many seconds for the first question."""
        try:
            found = [await asyncio.wait_for(self._asked.get(), seconds)]
        except TimeoutError:
            return []
        while not self._asked.empty():
            found.append(self._asked.get_nowait())
        return found

    async def answer(self, number: int, reason: str | None) -> None:
        if not (answer := self._answers.pop(number)).done():
            answer.set_result(reason)
