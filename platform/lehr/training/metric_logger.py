"""What a run records of itself: step and epoch records, events and progress."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from lehr.runs import Recorder, RunFolder, size_of
from lehr.runs.progress import CheckpointProgress, Ended, LiveDiagnosis, RecentSteps
from lehr.training.hardware import HardwareUse
from lehr.training.live_progress import LiveProgress
from lehr.training.setup import Plan
from lehr.training.state import TrainingState
from lehr.training.synchronisation import StepBuffer

FLUSH_SECONDS = 10.0  # how much of the step records a crash between checkpoints may cost a reader

Row = dict[str, float | None]
"""One row of a table: numbers by column; None where nothing was measured."""


@dataclass(frozen=True)
class Speed:
    """Examples that were trained, and seconds of their steps: what every figure of examples per second divides.

    A step waits for its input, computes, and sends gradients. Evaluation, records and checkpoints are none of it.
    """

    examples: float = 0.0
    seconds: float = 0.0

    def after(self, rows: Sequence[Row]) -> Speed:
        """The same with more rows of the step table."""
        examples, seconds = (sum(row[name] or 0.0 for row in rows) for name in ("examples", "seconds"))
        return Speed(self.examples + examples, self.seconds + seconds)

    def beyond(self, first: Speed | None) -> float:
        """Seconds that the first step, in which things are compiled, took more than the others among these."""
        if not first or self.examples <= first.examples:
            return 0.0
        usual = (self.seconds - first.seconds) / (self.examples - first.examples)
        return max(0.0, first.seconds - usual * first.examples)

    @property
    def per_second(self) -> float | None:
        """None before the first step."""
        return self.examples / self.seconds if self.seconds else None


class MetricLogger:
    """Writes the records, events and progress of one attempt, on the first worker."""

    def __init__(
        self, plan: Plan, run: RunFolder, recorder: Recorder, live: LiveProgress, hardware: HardwareUse
    ) -> None:
        self._plan, self._folder, self._recorder, self._live = plan, run.folder, recorder, live
        self._hardware = hardware
        self._steps: list[Row] = []
        self._epochs: list[Row] = []
        self._last_flush = self._epoch_began = time.perf_counter()
        self._speed, self._speed_of_epoch = Speed(), Speed()
        self.epoch_seconds = 0.0  # of the newest epoch
        self.warm_up = 0.0  # what the first step of this attempt took of it beyond the others
        self._first_step: Speed | None = None

    def event(self, kind: str, message: str, **fields: object) -> None:
        """Records at once that something happened; `message` is a sentence for people."""
        if kind == "unreadable":
            self._live.training = replace(self._live.training, skipped_images=self._live.training.skipped_images + 1)
        self._recorder.event(kind, message, **fields)

    def steps(
        self, state: TrainingState, losses: Sequence[float], buffer: StepBuffer, communication_seconds: float | None
    ) -> None:
        """Records the steps since the last synchronisation point, which are the newest of `state`.

        Args:
            losses: of the global batches.
            buffer: what else was measured in these steps.
            communication_seconds: time per step in which gradients were sent while none was computed, if measured.
        """
        rows = step_rows(self._plan, state.step - len(losses), losses, buffer)
        rows[-1] |= self._hardware.sample()
        self._steps += rows
        self._first_step = self._first_step or Speed().after(rows[:1])
        self._speed, self._speed_of_epoch = self._speed.after(rows), self._speed_of_epoch.after(rows)
        recent = recent_steps(rows, communication_seconds)
        self._live.training = replace(self._live.training, loss=sum(losses) / len(losses), recent=recent)
        self._live.training = replace(self._live.training, examples_per_second=self._speed.per_second)
        self._live.show(state)
        if time.perf_counter() - self._last_flush > FLUSH_SECONDS:
            self.flush()

    def epoch(self, epoch: int, state: TrainingState, metrics: Mapping[str, float], diagnosis: LiveDiagnosis) -> None:
        """Records a whole epoch (counted from 1) with its metrics over whole splits, and a diagnosis that is new."""
        now = time.perf_counter()
        seconds, self._epoch_began = now - self._epoch_began, now
        self.epoch_seconds = seconds
        self.warm_up = self._speed_of_epoch.beyond(self._first_step) if self._speed == self._speed_of_epoch else 0.0
        if diagnosis.name and diagnosis.name != self._live.training.diagnosis.name:
            self.event("diagnosis", diagnosis.sentence, step=state.step, diagnosis=diagnosis.name)
        self._epochs.append(
            {
                "epoch": epoch,
                "step": state.step,
                **metrics,
                "learning_rate": self._plan.learning_rate(state.step - 1),
                "seconds": seconds,
                "examples_per_second": self._speed_of_epoch.per_second,
            }
        )
        self._speed_of_epoch = Speed()
        self._live.metrics = metrics
        self._live.training = replace(self._live.training, epochs_done=epoch, diagnosis=diagnosis)
        self._live.show(state)

    def test(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of the test split to those of the last epoch."""
        self._live.metrics = {**self._live.metrics, **metrics}

    @property
    def attempt(self) -> int:
        """The number of this attempt."""
        return self._recorder.attempt.number

    def check(self) -> None:
        """Raises `Superseded` if another process has begun a newer attempt."""
        self._recorder.attempt.check(self._folder)

    def saved(self, checkpoint: str) -> None:
        """Notes a new checkpoint, by name."""
        newest = CheckpointProgress(time=time.time(), bytes=size_of(self._folder, checkpoint))
        self._live.training = replace(self._live.training, checkpoint=newest)

    def flush(self) -> None:
        """Writes the buffered records as parts."""
        self._last_flush = time.perf_counter()
        if self._steps:
            names = dict.fromkeys(name for row in self._steps for name in row)
            self._recorder.write_steps({name: [row.get(name) for row in self._steps] for name in names})
        if self._epochs:
            names = dict.fromkeys(name for row in self._epochs for name in row)  # an average may begin in between
            self._recorder.write_epochs({name: [row.get(name) for row in self._epochs] for name in names})
        self._steps, self._epochs = [], []

    def covered(self) -> dict[str, dict[str, int]]:
        """The record parts that count now, how many of each attempt, for a checkpoint's state."""
        return self._recorder.covered()

    def finish(self, status: Ended, message: str, state: TrainingState) -> None:
        """Writes what is still buffered, and how the attempt ended."""
        self.flush()
        self.event(status, message, step=state.step)
        self.close()
        self._live.write(status, state, message)

    def close(self) -> None:
        """Waits until the last progress is written; nothing is written after this."""
        self._live.close()


class NoLogger(MetricLogger):
    """The other workers' logger, which records nothing."""

    def __init__(self) -> None:
        self.epoch_seconds = self.warm_up = 0.0

    def event(self, *_: object, **__: object) -> None:
        pass

    def steps(self, *_: object, **__: object) -> None:
        pass

    def epoch(self, *_: object, **__: object) -> None:
        pass

    def test(self, *_: object, **__: object) -> None:
        pass

    def finish(self, *_: object, **__: object) -> None:
        pass

    def close(self) -> None:
        pass


def step_rows(plan: Plan, first: int, losses: Sequence[float], buffer: StepBuffer) -> list[Row]:
    """The rows of the step table for the steps from `first` on."""
    norms = torch.stack([result.gradient_norm for result in buffer.results]).tolist()
    return [
        {
            "step": step,
            "epoch": step / plan.length.steps_per_epoch,
            "loss": loss,
            "learning_rate": plan.learning_rate(step),
            "gradient_norm": norm,
            "update_ratio": None if result.update_ratio is None else float(result.update_ratio),
            "examples": plan.sampler.size(step % plan.length.steps_per_epoch),
            "seconds": seconds,
            "input_seconds": waited,
        }
        for step, loss, norm, result, (seconds, waited) in zip(
            range(first, first + len(losses)), losses, norms, buffer.results, buffer.times, strict=True
        )
    ]


def recent_steps(rows: Sequence[Row], communication_seconds: float | None) -> RecentSteps:
    """Means over some rows of the step table."""
    norm, speed = sum(row["gradient_norm"] or 0.0 for row in rows), Speed().after(rows)
    return RecentSteps(norm / len(rows), speed.seconds / len(rows), speed.per_second, communication_seconds)
