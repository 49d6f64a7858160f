"""What progress.json shows while an attempt trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from lehr.runs import Progress, RunFolder, TrainingProgress
from lehr.runs.latest import LatestWriter
from lehr.runs.progress import CheckpointProgress, State
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.state import TrainingState
from lehr.training.stopwatch import Stopwatch


class LiveProgress:
    """The newest figures of one attempt, written in a thread of its own. First worker only.

    Attributes:
        training: the figures, replaced as they change; those that follow from the state are filled in when written.
        metrics: those of the newest whole epoch, later also of the test.
    """

    def __init__(
        self, plan: Plan, run: RunFolder, group: Group, stopwatch: Stopwatch, attempt: int, first_step: int
    ) -> None:
        self._plan, self._run, self._device, self._stopwatch = plan, run, group.device, stopwatch
        self._writer = LatestWriter(run.write_progress)
        self._first_step, self._began = first_step, time.perf_counter()
        self.metrics: Mapping[str, float] = {}
        self.training = TrainingProgress(
            attempt=attempt,
            workers=group.size,
            total_steps=plan.length.total_steps,
            epochs=plan.job.train.epochs,
            checkpoint=CheckpointProgress(time=time.time()),
        )

    def show(self, state: TrainingState) -> None:
        """Has progress.json replaced soon, without waiting for it."""
        self._writer.offer(self._progress("running", state, ""))

    def write(self, status: State, state: TrainingState, message: str = "") -> None:
        """Replaces progress.json now."""
        self._run.write_progress(self._progress(status, state, message))

    def close(self) -> None:
        """Waits until what was shown last is written."""
        self._writer.close()

    def _progress(self, status: State, state: TrainingState, message: str) -> Progress:
        plan, length, step = self._plan, self._plan.length, state.step
        seconds, done = time.perf_counter() - self._began, step - self._first_step
        per_second = done / seconds if done else None  # steps of this attempt
        on_gpu = self._device.type == "cuda"
        return Progress(
            status=status,
            message=message,
            best=state.best.shown(),
            metrics=self.metrics,
            measured_rows=plan.splits.measured_rows,
            seconds={"total": seconds, **self._stopwatch.seconds},
            seconds_left=(length.total_steps - step) / per_second if per_second else None,
            updated=time.time(),
            training=replace(
                self.training,
                step=step,
                epoch=step / length.steps_per_epoch,
                learning_rate=plan.learning_rate(max(step - 1, 0)),
                gpu_memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
            ),
        )
