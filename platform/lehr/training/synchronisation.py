"""Synchronisation points: about twice a second the workers bring together what each of them knows.

Between two of them every worker keeps its losses to itself. At a synchronisation point one sum over all workers gives
everyone the losses of the whole batches, and says whether somebody asked to stop. So recording costs no communication
per step and no wait for the GPU, and all workers decide the same after the same step.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lehr.training.group import Group
from lehr.training.stopping import Enough, Leaving
from lehr.training.stopwatch import Stopwatch
from lehr.training.train_step import StepResult

_KINDS = (Leaving, Enough, str)  # of reasons to stop; the last one is any other

SYNC_SECONDS = 0.5  # how often the screen moves and a request to stop is heard


class Synchroniser:
    """Decides after which steps the workers synchronise, and does it."""

    def __init__(self, group: Group, step: int) -> None:
        """`step`: optimizer steps taken so far. The first synchronisation point is after the next one."""
        self._group = group
        self._next_step = step + 1
        self._last = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether to synchronise after `step` steps: a function of what all workers know, so they agree."""
        return step >= self._next_step

    def synchronise(self, step: int, losses: Tensor, stop: str | None) -> tuple[list[float], str | None]:
        """Waits for the other workers. All of them must call it after the same step.

        Args:
            step: optimizer steps taken.
            losses: float64 [steps since the last synchronisation point], this worker's part of each loss.
            stop: why to stop, as the first worker knows it.

        Returns:
            The losses of the global batches, and why to stop, if so; the same on every worker, except that only the
            first one knows the reason in words. All know whether it is `Enough` or `Leaving`.
        """
        elapsed = time.perf_counter() - self._last if self._group.first else 0.0
        kind = next((each for each in _KINDS if isinstance(stop, each)), None)
        asked = float(_KINDS.index(kind) + 1) if kind else 0.0
        extra = torch.tensor([elapsed, asked], dtype=torch.float64, device=self._group.device)
        *summed, elapsed, stops = self._group.sum(torch.cat([losses, extra])).tolist()
        steps = len(summed)
        self._next_step = step + max(1, min(4 * steps, round(steps * SYNC_SECONDS / max(elapsed, 1e-6))))
        self._last = time.perf_counter()
        return summed, (stop or _KINDS[round(stops) - 1]("asked to stop")) if stops else None


class StepBuffer:
    """The steps since the last synchronisation point: results that nobody has waited for yet, and their times."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._worked = self._waited = 0.0
        self.results: list[StepResult] = []
        self.times: list[tuple[float, float]] = []

    def add(self, result: StepResult) -> None:
        """Adds a step that was just taken."""
        # A step's time is its input and compute; what happens between steps is measured under other names.
        spent = self._stopwatch.seconds
        waited, worked = spent["input"], spent["input"] + spent["compute"]
        self.results.append(result)
        self.times.append((worked - self._worked, waited - self._waited))
        self._worked, self._waited = worked, waited

    def losses(self) -> Tensor:
        """float64 [steps]: this worker's part of each loss."""
        return torch.stack([result.loss for result in self.results]).double()

    def clear(self) -> None:
        self.results.clear()
        self.times.clear()
