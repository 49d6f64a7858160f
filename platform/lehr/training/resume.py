"""How an attempt begins: which checkpoint it resumes from, and what its first events say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lehr.runs import Attempt, Checkpoint, Folder, Recorder, RunFolder, all_attempts, begin_attempt
from lehr.runs.checkpoints import load, name_of, newest_valid
from lehr.training.group import Group
from lehr.training.live_progress import LiveProgress
from lehr.training.metric_logger import MetricLogger, NoLogger
from lehr.training.setup import Plan
from lehr.training.state import TrainingState
from lehr.training.stopping import Best
from lehr.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class ResumePoint:
    """What an attempt begins with.

    Attributes:
        checkpoint: None for a start from the first step.
        skipped: what was wrong with newer checkpoints, a sentence for each; known to the first worker.
    """

    checkpoint: Checkpoint | None
    skipped: Sequence[str] = ()


def find_resume_point(folder: Folder, group: Group) -> ResumePoint:
    """The newest valid checkpoint of a run folder, if there is one. The first worker chooses it for all."""
    chosen, skipped = newest_valid(folder, _best_step) if group.first else (None, [])
    name = group.broadcast(name_of(chosen.step) if chosen else None)
    return ResumePoint(chosen if group.first or name is None else load(folder, name), skipped)


def _best_step(checkpoint: Checkpoint) -> int | None:
    """The step of the best model so far, which a run that resumes from this checkpoint may have to end with."""
    return Best(**checkpoint.state["best"]).step


def begin_logging(
    plan: Plan, run: RunFolder, group: Group, stopwatch: Stopwatch, state: TrainingState, resume: ResumePoint
) -> MetricLogger:
    """Begins a new attempt in the run folder, and records what it begins with."""
    if not group.first:
        return NoLogger()
    length, before = plan.length, run.progress()
    attempt = begin_attempt(
        run.folder,
        workers=group.size,
        checkpoint=resume.checkpoint,
        steps_per_epoch=length.steps_per_epoch,
        total_steps=length.total_steps,
    )
    run.begin()
    recorder = Recorder(run.folder, attempt)
    for sentence in resume.skipped:
        recorder.event("checkpoint_skipped", sentence)
    reached, reason = before.training.step if before.training else 0, run.take_loss()
    if attempt.number > 1 and (reason or before.status == "running"):
        reason = reason or _likely_reason(run, attempt)
        recorder.event("lost", f"attempt {attempt.number - 1} ended at step {reached}: {reason}", step=reached)
    _record_start(plan, recorder, resume.checkpoint, max(0, reached - state.step) if attempt.number > 1 else 0)
    live = LiveProgress(plan, run, group, stopwatch, attempt.number, state.step)
    # Written before training begins: what an earlier attempt left there, damaged perhaps, is gone by then.
    live.write("running", state)
    return MetricLogger(plan, run, recorder, live)


def _likely_reason(run: RunFolder, attempt: Attempt) -> str:
    """Why the attempt before this one ended, where nobody saw it."""
    last = all_attempts(run.folder)[-2]
    if last.workers != attempt.workers:
        return f"the number of workers changes from {last.workers} to {attempt.workers}"
    return "its process exited without an error message (it was killed, or its machine went away)"


def _record_start(plan: Plan, recorder: Recorder, checkpoint: Checkpoint | None, repeated: int) -> None:
    count = recorder.attempt.workers
    workers = f"{count} worker{'s' if count > 1 else ''}"
    again = f", repeating {repeated} step{'s' if repeated > 1 else ''}," if repeated else ""
    if checkpoint:
        recorder.event("resumed", f"resumes from step {checkpoint.step}{again} with {workers}", step=checkpoint.step)
        return
    splits = plan.splits
    rows = {"train_rows": len(splits.train), "validation_rows": len(splits.validation)}
    recorder.event("started", f"starts{again} with {workers}", step=0, classes=plan.task.outputs, **rows)
