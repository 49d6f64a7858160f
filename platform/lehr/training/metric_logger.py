"""What a run says of itself: step and epoch records, events and progress.

Workers keep their losses to themselves between *pulses*, about one a second: at a pulse one sum over all workers brings
the losses together and tells everyone whether somebody asked to stop. So recording costs no communication per step, no
wait for the GPU, and no file per step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lehr.runs import Checkpoint, Recorder, RunFolder, all_attempts, begin_attempt
from lehr.runs.latest import LatestWriter
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.stopping import Best
from lehr.training.stopwatch import Stopwatch

PULSE_SECONDS = 0.5  # how often the screen moves and a request to stop is heard
FLUSH_SECONDS = 10.0  # how much of the step records a crash between checkpoints may cost a reader


@dataclass(frozen=True)
class Pulse:
    """What all workers learn at a pulse.

    Attributes:
        losses: the global batch loss of each step since the last pulse.
        stop: why the run was asked to stop.
    """

    losses: list[float]
    stop: str | None


class MetricLogger:
    """Records of one attempt. Every worker has one; only the first worker's writes."""

    def __init__(
        self, plan: Plan, run: RunFolder, group: Group, should_stop: Callable[[], str | None], watch: Stopwatch
    ) -> None:
        self._plan, self._run, self._group = plan, run, group
        self._should_stop, self._watch = should_stop, watch
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._updates: list[Tensor | None] = []
        self._times: list[tuple[float, float]] = []
        self._steps: list[dict[str, Any]] = []
        self._epochs: list[dict[str, Any]] = []
        self._metrics: dict[str, float] = {}
        self._diagnosis: dict[str, str] = {}
        self._recent_loss: float | None = None
        self._recent: dict[str, float] = {}  # means over the steps since the last pulse, for monitoring
        self._checkpoint: dict[str, float] = {}
        self._skipped = 0
        self.communication: Callable[[], float | None] = lambda: None  # seconds per step that gradients are waited for
        self._epochs_done = 0
        self._recorder: Recorder | None = None
        self._newest = LatestWriter(run.write_progress)
        self._attempt = 0
        self._first_step = self._last_pulse_step = self._next_pulse_step = 0
        self._began = self._last_pulse = self._last_flush = self._epoch_began = time.perf_counter()
        self._worked_before = self._waited_before = 0.0

    # ── begin, events, end ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, checkpoint: Checkpoint | None, notes: list[str], best: Best) -> None:
        """Opens a new attempt that goes on from the checkpoint. `notes` say what was wrong with newer ones."""
        step = checkpoint.step if checkpoint else 0
        self._first_step = self._last_pulse_step = step
        self._next_pulse_step = step + 1
        self._began = self._last_pulse = self._last_flush = self._epoch_began = time.perf_counter()
        if not self._group.first:
            return
        clock = self._plan.clock
        attempt = begin_attempt(
            self._run.folder,
            workers=self._group.size,
            checkpoint=checkpoint,
            steps_per_epoch=clock.steps_per_epoch,
            total_steps=clock.total_steps,
        )
        self._run.begin()
        self._attempt = attempt.number
        self._checkpoint = {"time": time.time()}  # what is lost without one is at most what this attempt did
        self._recorder = Recorder(self._run.folder, attempt)
        for note in notes:
            self.event("checkpoint_skipped", note)
        workers = f"{self._group.size} worker{'s' if self._group.size > 1 else ''}"
        back = self._tell_end_of_last(attempt.number, step)
        if checkpoint:
            self.event("resumed", f"goes on from step {step}{back} with {workers}", step=step)
        else:
            splits = self._plan.splits
            rows = {"train_rows": len(splits.train), "validation_rows": len(splits.validation)}
            self.event("started", f"starts{back} with {workers}", step=0, classes=self._plan.task.outputs, **rows)
        # Waited for, unlike those that follow: what an earlier attempt left, damaged perhaps, is gone before training.
        self._run.write_progress(self._progress("running", step, best, ""))

    def _tell_end_of_last(self, attempt: int, step: int) -> str:
        """Notes why the attempt before this one ended, if it was lost; returns the steps that are taken again."""
        before, why = self._run.progress(), self._run.take_loss()
        reached = step_told if isinstance(step_told := before.get("step"), int) else 0
        if attempt > 1 and (why or before.get("status") == "running"):
            workers = all_attempts(self._run.folder)[-2].workers
            resized = f"{self._group.size} workers go on instead of {workers}" if workers != self._group.size else ""
            why = why or resized or "its process ended without a word (killed, or its machine went away)"
            self.event("lost", f"attempt {attempt - 1} ended at step {reached}: {why}", step=reached)
        repeated = max(0, reached - step) if attempt > 1 else 0
        return f", {repeated} step{'s' if repeated > 1 else ''} back," if repeated else ""

    def event(self, kind: str, message: str, **fields: Any) -> None:
        self._skipped += kind == "unreadable"
        if self._recorder:
            self._recorder.event(kind, message, **fields)

    def saved(self, checkpoint: str) -> None:
        """Takes note of a new checkpoint, by name. First worker only."""
        files = self._run.folder.read_json(f"checkpoints/{checkpoint}/manifest.json")["files"].values()
        self._checkpoint = {"time": time.time(), "bytes": sum(file["size"] for file in files)}

    def finish(self, status: str, message: str, step: int, best: Best) -> None:
        """Writes what is still buffered, and how the attempt ended: `finished`, `stopped` or `failed`."""
        self.flush()
        self.event(status, message, step=step)
        self.close()
        if self._group.first:
            self._run.write_progress(self._progress(status, step, best, message))

    def close(self) -> None:
        """Waits until what was told is written; after this nothing is."""
        self._newest.close()

    # ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, loss: Tensor, norm: Tensor, update: Tensor | None) -> None:
        """Takes in one step: this worker's part of the loss, and the gradient norm and update ratio of all."""
        # A step's time is its input and compute: what happens between steps has names of its own.
        spent = self._watch.seconds
        waited, worked = spent["input"], spent["input"] + spent["compute"]
        self._losses.append(loss)
        self._norms.append(norm)
        self._updates.append(update)
        self._times.append((worked - self._worked_before, waited - self._waited_before))
        self._worked_before, self._waited_before = worked, waited

    def pulse_due(self, step: int) -> bool:
        """Whether the workers should meet now. A function of what all workers know, so they agree."""
        return step >= self._next_pulse_step

    def pulse(self, step: int, best: Best) -> Pulse:
        """Meets the other workers. Must be called by all of them after the same step."""
        reason = self._should_stop() if self._group.first else None
        elapsed = time.perf_counter() - self._last_pulse if self._group.first else 0.0
        told = torch.tensor([elapsed, float(reason is not None)], dtype=torch.float64, device=self._group.device)
        with self._watch.time("compute"):  # on a GPU this is where the launched work is waited for
            *losses, elapsed, stop = self._group.sum(torch.cat([torch.stack(self._losses).double(), told])).tolist()
        steps = len(losses)
        self._next_pulse_step = step + max(1, min(4 * steps, round(steps * PULSE_SECONDS / max(elapsed, 1e-6))))
        self._last_pulse = time.perf_counter()
        if self._group.first:
            self._keep(step - steps, losses)
            self._tell(step, best)
            if self._last_pulse - self._last_flush > FLUSH_SECONDS:
                self.flush()
        for pending in (self._losses, self._norms, self._updates, self._times):
            pending.clear()
        return Pulse(losses, (reason or "asked to stop") if stop else None)

    def _keep(self, first: int, losses: list[float]) -> None:
        norms = torch.stack(self._norms).tolist()
        for i, loss in enumerate(losses):
            step, (seconds, waited), update = first + i, self._times[i], self._updates[i]
            self._steps.append(
                {
                    "step": step,
                    "epoch": step / self._plan.clock.steps_per_epoch,
                    "loss": loss,
                    "learning_rate": self._plan.rate(step),
                    "gradient_norm": norms[i],
                    "update_ratio": None if update is None else float(update),
                    "examples": self._plan.epochs.size(step % self._plan.clock.steps_per_epoch),
                    "seconds": seconds,
                    "input_seconds": waited,
                }
            )
        self._recent_loss = sum(losses) / len(losses)
        rows = self._steps[-len(losses) :]
        seconds = sum(row["seconds"] for row in rows)
        self._recent = {"gradient_norm": sum(norms) / len(rows), "step_seconds": seconds / len(rows)}
        self._recent["examples_per_second"] = sum(row["examples"] for row in rows) / seconds
        if (communication := self.communication()) is not None:
            self._recent["communication_seconds"] = communication

    def epoch(
        self, epoch: int, step: int, metrics: dict[str, float], best: Best, clear: tuple[str, str] | None = None
    ) -> None:
        """Records a whole epoch (counted from 1) with its metrics over whole splits, and a diagnosis that is clear."""
        now = time.perf_counter()
        seconds, self._epoch_began = now - self._epoch_began, now
        self._metrics, self._epochs_done = metrics, epoch
        if clear and clear[0] != self._diagnosis.get("name"):
            self.event("diagnosis", clear[1], step=step, diagnosis=clear[0])
        self._diagnosis = {"name": clear[0], "sentence": clear[1]} if clear else {}
        self._epochs.append(
            {
                "epoch": epoch,
                "step": step,
                **self._metrics,
                "learning_rate": self._plan.rate(step - 1),
                "seconds": seconds,
                "examples_per_second": self._plan.epochs.rows / seconds,
            }
        )
        self._tell(step, best)

    def metrics(self, metrics: dict[str, float]) -> None:
        """Adds metrics that belong to the run and not to an epoch, such as the test score."""
        self._metrics = {**self._metrics, **metrics}

    def flush(self) -> None:
        """Writes the buffered records as parts."""
        self._last_flush = time.perf_counter()
        if self._recorder is None:
            return
        if self._steps:
            self._recorder.write_steps({name: [row[name] for row in self._steps] for name in self._steps[0]})
        if self._epochs:
            names = dict.fromkeys(name for row in self._epochs for name in row)  # an average may begin in between
            self._recorder.write_epochs({name: [row.get(name) for row in self._epochs] for name in names})
        self._steps, self._epochs = [], []

    def covered(self) -> dict[str, list[str]]:
        """The record parts that count now, for a checkpoint's state. First worker only."""
        assert self._recorder is not None
        return self._recorder.covered()

    def _tell(self, step: int, best: Best) -> None:
        if self._group.first:
            self._newest.offer(self._progress("running", step, best, ""))

    def _progress(self, status: str, step: int, best: Best, message: str) -> dict[str, Any]:
        clock, seconds = self._plan.clock, time.perf_counter() - self._began
        done = step - self._first_step
        return {
            "status": status,
            "message": message,
            "attempt": self._attempt,
            "workers": self._group.size,
            "step": step,
            "total_steps": clock.total_steps,
            "epoch": step / clock.steps_per_epoch,
            "epochs": self._plan.job.train.epochs,
            "epochs_done": self._epochs_done,
            "loss": self._recent_loss,
            "learning_rate": self._plan.rate(max(step - 1, 0)),
            "metrics": self._metrics,
            "best": best.to_dict(),
            "diagnosis": self._diagnosis,
            "examples_per_second": done * self._plan.epochs.rows / clock.steps_per_epoch / seconds if done else None,
            "seconds_left": (clock.total_steps - step) * seconds / done if done else None,
            "seconds": {"total": seconds, **self._watch.seconds},
            "recent": self._recent,
            "checkpoint": self._checkpoint,
            "skipped_images": self._skipped,
            "gpu_memory_bytes": torch.cuda.max_memory_allocated() if self._group.device.type == "cuda" else None,
            "updated": time.time(),
        }
