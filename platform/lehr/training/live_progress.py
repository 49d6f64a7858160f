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
        self._warm: tuple[int, float] | None = None  # the first steps, in which things are compiled: how many, seconds
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
        seconds = time.perf_counter() - self._began
        on_gpu = self._device.type == "cuda"
        return Progress(
            status=status,
            message=message,
            best=state.best.shown(),
            metrics=self.metrics,
            measured_rows=plan.splits.measured_rows,
            seconds={"total": seconds, **self._stopwatch.seconds},
            seconds_left=0.0 if status == "finished" else self._seconds_left(step),
            updated=time.time(),
            training=replace(
                self.training,
                step=step,
                epoch=step / length.steps_per_epoch,
                learning_rate=plan.learning_rate(max(step - 1, 0)),
                gpu_memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
            ),
        )

    def _seconds_left(self, step: int) -> float | None:
        """An estimate: what the steps left take, and the ends of epochs, each as those of this attempt took.

        The first steps, in which kernels are chosen and compiled, count only as long as there are no others.
        """
        spent, length = self._stopwatch.seconds, self._plan.length
        done, stepping = step - self._first_step, spent["input"] + spent["compute"]
        if not done:
            return None
        if not self._warm:
            self._warm = (done, stepping)
        steps, seconds = self._warm
        per_step = (stepping - seconds) / (done - steps) if done > steps else stepping / done
        ends = self.training.epochs_done - self._first_step // length.steps_per_epoch
        per_end = sum(spent[name] for name in ("evaluation", "records", "checkpoints")) / ends if ends > 0 else 0.0
        ends_left = max(0, self.training.epochs - self.training.epochs_done)
        after = spent["evaluation"] / ends * (2 if self._plan.splits.test else 1) if ends > 0 else 0.0
        return (length.total_steps - step) * per_step + ends_left * per_end + after
