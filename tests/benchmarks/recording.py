"""Cost of recording: one step of the metric logger, and the report of a run of a million steps.

    python -m tests.benchmarks.recording [steps]

The cost of a step is what the metric logger does with it, including its share of the synchronisation points and of the
record parts written; training itself is excluded. The report is that of `lehr report`: curves, page and diagnosis from
the recorded parts.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lehr.curves import write_curves
from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, Progress, Recorder, RunFolder, begin_attempt
from lehr.training.group import Group
from lehr.training.resume import ResumePoint, begin_logging
from lehr.training.setup import Plan
from lehr.training.state import TrainingState
from lehr.training.stopwatch import Stopwatch
from lehr.training.synchronisation import StepBuffer, Synchroniser
from lehr.training.train_step import StepResult

STEPS_PER_EPOCH = 1000


def cost_of_a_step(folder: Path, steps: int = 100_000) -> float:
    """Seconds per step that the metric logger takes, including synchronisation points and record parts."""
    job = from_dict({"kind": "train", "train": {"epochs": 10_000}})
    assert isinstance(job, TrainJob)
    run = RunFolder.create(Folder.at(folder), to_dict(job))
    plan, group, stopwatch = Plan.make(job, splits(job, OpenedSources(job).decode())), Group(), Stopwatch()
    state, buffer, synchroniser = TrainingState.start(job), StepBuffer(stopwatch), Synchroniser(group, 0)
    run.claim_attempt(workers=group.size)
    logger = begin_logging(plan, run, group, stopwatch, state, ResumePoint(None))
    loss, norm = torch.tensor(0.5), torch.tensor(1.0)
    started = time.perf_counter()
    for step in range(steps):
        with stopwatch.time("compute"):
            state = state.after_step()
        buffer.add(StepResult(loss, norm, loss if step % 10 == 0 else None))
        if synchroniser.due(state.step):
            losses, _ = synchroniser.synchronise(state.step, buffer.losses(), None)
            logger.steps(state, losses, buffer, None)
            buffer.clear()
            state = state.with_losses(losses)
    logger.flush()
    seconds = (time.perf_counter() - started) / steps
    logger.close()
    return seconds


def million_steps(folder: Path, steps: int) -> RunFolder:
    """A run with recorded steps: a noisy falling loss, and an epoch for every thousand steps."""
    run = RunFolder.create(Folder.at(folder), to_dict(from_dict({"kind": "train"})))
    recorder = Recorder(run.folder, begin_attempt(run.folder, workers=1, checkpoint=None))
    recorder.event("started", "starts", classes=10, train_rows=50_000, validation_rows=10_000)
    random = np.random.default_rng(0)
    for first in range(0, steps, 50_000):
        step = np.arange(first, min(first + 50_000, steps))
        loss = 0.1 + 2.2 * np.exp(-4 * step / steps) * random.lognormal(0, 0.2, len(step))
        recorder.write_steps(
            {
                "step": step,
                "epoch": step / STEPS_PER_EPOCH,
                "loss": loss,
                "learning_rate": 0.05 * (1 + np.cos(math.pi * step / steps)),
                "gradient_norm": random.lognormal(0, 0.5, len(step)),
                "update_ratio": np.where(step % 10 == 0, 5e-3, np.nan),
                "examples": np.full(len(step), 128),
                "seconds": random.lognormal(-4, 0.1, len(step)),
                "input_seconds": np.full(len(step), 1e-4),
            }
        )
    epoch = np.arange(1, steps // STEPS_PER_EPOCH + 1)
    accuracy = 1 - 0.9 * np.exp(-4 * epoch / len(epoch))
    recorder.write_epochs(
        {
            "epoch": epoch,
            "step": epoch * STEPS_PER_EPOCH,
            "validation_accuracy": accuracy,
            "clean_train_accuracy": accuracy + 0.01,
            "validation_loss": 2.3 * (1 - accuracy) + 0.1,
            "train_loss": 2.3 * (1 - accuracy) + 0.05,
        }
    )
    run.write_progress(Progress(status="finished", seconds={"total": 1.0}))
    return run


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        costs = sorted(cost_of_a_step(Path(folder) / f"cost-{number}", steps // 10) for number in range(3))
        run = million_steps(Path(folder) / "long", steps)
        took = []
        for _ in range(3):
            started = time.perf_counter()
            write_curves(run)
            took.append(time.perf_counter() - started)
            print(f"  report {took[-1]:.2f} s", flush=True)
        size = len(run.folder.read("report.html")) / 1e6
    print(f"\nrecording a step: {1e6 * costs[1]:.1f} µs ({1e6 * costs[0]:.1f} to {1e6 * costs[2]:.1f}); expected ≤ 20")
    print(
        f"report of {steps:,} steps: {sorted(took)[1]:.2f} s (the first, with its imports, {took[0]:.2f} s), "
        f"{size:.1f} MB; expected ≤ 3 s"
    )


if __name__ == "__main__":
    main()
