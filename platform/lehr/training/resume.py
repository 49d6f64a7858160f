"""How an attempt begins: which checkpoint it resumes from, and what its first events say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lehr.data.streaming import StreamedSubset
from lehr.errors import RunError, TrainingError
from lehr.job.training import tie_breaker
from lehr.runs import (
    Attempt,
    Checkpoint,
    DamagedCheckpoint,
    Folder,
    Recorder,
    RunFolder,
    all_attempts,
    read_epochs,
    saved,
)
from lehr.runs.checkpoints import load, newest_valid
from lehr.tasks.classification import Classification
from lehr.training.group import Group
from lehr.training.hardware import HardwareUse
from lehr.training.live_progress import LiveProgress
from lehr.training.metric_logger import MetricLogger, NoLogger
from lehr.training.setup import Plan
from lehr.training.state import CURVES, TrainingState
from lehr.training.stopping import Best
from lehr.training.stopwatch import Stopwatch

Row = Mapping[str, Any]
"""A row of the table of epochs: values by column; None where nothing was measured."""


@dataclass(frozen=True)
class ResumePoint:
    """What an attempt begins with.

    Attributes:
        checkpoint: None for a start from the first step.
        skipped: what was wrong with newer checkpoints, a sentence for each; known to the first worker.
        best: the best model that is left; None for a start from the first step.
        lost: what happened to it, as a sentence; known to the first worker.
        history: what the record holds of the epochs so far, as `TrainingState` has it.
    """

    checkpoint: Checkpoint | None
    skipped: Sequence[str] = ()
    best: Best | None = None
    lost: str = ""
    history: tuple[Mapping[str, float], ...] = ()

    def state(self, start: TrainingState) -> TrainingState:
        """How far training is at this point; `start`: before the first step."""
        if not self.checkpoint:
            return start
        state = replace(TrainingState.read(self.checkpoint), history=self.history)
        return replace(state, best=self.best) if self.best else state


def find_resume_point(folder: Folder, group: Group) -> ResumePoint:
    """The newest valid checkpoint of a run folder, if there is one. The first worker chooses it for all.

    It is the newest one even where the best model, which is an older checkpoint, is lost: steps are worth more.
    """
    chosen, skipped = newest_valid(folder) if group.first else (None, [])
    epochs = epochs_until(folder, chosen.step) if chosen else []
    best, lost = _best_of(folder, chosen, epochs) if chosen else (None, "")
    history = tuple({name: row[name] for name in CURVES if row.get(name) is not None} for row in epochs)
    name, best, history = group.broadcast((chosen.name if chosen else None, best, history))
    checkpoint = chosen if group.first or name is None else load(folder, name)
    return ResumePoint(checkpoint, skipped, best, lost, history)


def in_recorded_order(plan: Plan, checkpoint: Checkpoint) -> Plan:
    """The plan with its rows in the order in which a checkpoint's run has them.

    A streamed run that began before there were data shards has one. Of a cached run, an earlier version noted nothing.

    Raises:
        TrainingError: in the middle of an epoch, images that were streamed are cached now, or the other way round: of
            the rows that are left some would be repeated, and others left out.
    """
    rows, recorded = plan.splits.train, checkpoint.state.get("shards")
    streamed = rows.decodes_lazily
    if recorded is not None and streamed != bool(recorded) and checkpoint.step % plan.length.steps_per_epoch:
        were, are = ("streamed", "cached") if recorded else ("cached", "streamed")
        what = f"its images were {were}, and here they are {are}, in another order"
        raise TrainingError(
            f"the run is in the middle of an epoch and cannot go on: {what}; "
            f"resume it where there is {'no more' if recorded else 'as much'} memory, or start over with --fresh"
        )
    if isinstance(rows, StreamedSubset) and rows.some is not None and recorded != 0:
        shards = 1 if recorded is None else int(recorded)
        return replace(plan, sampler=rows.sampler_of(plan.sampler.batch_size, plan.sampler.seed, shards))
    return plan


def _best_of(folder: Folder, checkpoint: Checkpoint, epochs: Sequence[Row]) -> tuple[Best, str]:
    """The best model that is left, and what is lost, if the best one as of a checkpoint is.

    The loss that decides between it and equal ones to come is in the record where an older checkpoint does not say it.
    """
    best = Best.read(checkpoint.state["best"], checkpoint.state.get("best_loss"))
    if best.loss is None:
        row = next((row for row in epochs if row["step"] == best.step), {})
        best = replace(best, loss=row.get(tie_breaker(best.metric)))
    if best.step in (None, checkpoint.step) or load_step(folder, best.step):
        return best, ""
    left = best_left(folder, best, epochs)
    return left, describe_lost_best(best, left)


def load_step(folder: Folder, step: int | None) -> Checkpoint | None:
    """The checkpoint of this step; None where there is none that verifies."""
    name = saved(folder).get(step) if step is not None else None
    try:
        return load(folder, name) if name else None
    except DamagedCheckpoint:
        return None


def epochs_until(folder: Folder, step: int) -> list[Row]:
    """The rows of the epochs that ended by `step`; none where the record is damaged."""
    try:
        return [row for row in read_epochs(folder).to_pylist() if row["step"] <= step]
    except RunError:
        return []


def best_left(folder: Folder, lost: Best, epochs: Sequence[Row]) -> Best:
    """The best model among the checkpoints at the ends of these epochs that verify, by the metric of `lost`.

    One without a value where there is no such checkpoint.
    """
    known = {row["step"]: row for row in epochs if row.get(lost.metric) is not None}
    found = Best(lost.metric, lower=lost.lower)
    for step in sorted(known.keys() & saved(folder).keys()):
        if load_step(folder, step):
            row = known[step]
            found = found.update(row[lost.metric], step, row["epoch"], loss=row.get(tie_breaker(lost.metric)))
    done = max((row["epoch"] for row in known.values()), default=0)
    return replace(found, stale=done - found.epoch if found.epoch else 0)


def describe_lost_best(lost: Best, left: Best) -> str:
    """What it means that the checkpoint of the best epoch is damaged or gone."""
    what = f"the best model, of epoch {lost.epoch} ({lost.metric} {lost.value:.4g}), is damaged or gone"
    if left.epoch is None:
        return f"{what}, and no checkpoint of an earlier epoch is left; the best one is chosen among the coming epochs"
    return f"{what}; the best one left is of epoch {left.epoch} ({left.metric} {left.value:.4g})"


def begin_logging(
    plan: Plan, run: RunFolder, group: Group, stopwatch: Stopwatch, state: TrainingState, resume: ResumePoint
) -> MetricLogger:
    """Starts the attempt that the first worker has claimed, and records what it starts with."""
    if not group.first:
        return NoLogger()
    length, before = plan.length, run.progress()
    attempt = run.start_attempt(
        checkpoint=resume.checkpoint, steps_per_epoch=length.steps_per_epoch, total_steps=length.total_steps
    )
    run.begin()
    recorder = Recorder(run.folder, attempt)
    for sentence in resume.skipped:
        recorder.event("checkpoint_skipped", sentence)
    if resume.lost:
        recorder.event("best_lost", resume.lost)
    if attempt.missing:
        count = len(attempt.missing)
        some = ", ".join(attempt.missing[:3]) + (f" and {count - 3} more" if count > 3 else "")
        recorder.event("record_lost", f"parts of the record are damaged or gone: {some}")
    reached, reason = before.training.step if before.training else 0, run.take_loss()
    if attempt.number > 1 and (reason or before.status == "running"):
        reason = reason or _likely_reason(run, attempt)
        recorder.event("lost", f"attempt {attempt.number - 1} ended at step {reached}: {reason}", step=reached)
    _record_start(plan, recorder, resume.checkpoint, max(0, reached - state.step) if attempt.number > 1 else 0)
    live = LiveProgress(plan, run, group, stopwatch, attempt.number, state.step)
    # Written before training begins: what an earlier attempt left there, damaged perhaps, is gone by then.
    live.write("running", state)
    return MetricLogger(plan, run, recorder, live, HardwareUse(group.device))


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
    for note in plan.notes:
        recorder.event("shortened", note)
    if checkpoint:
        recorder.event("resumed", f"resumes from step {checkpoint.step}{again} with {workers}", step=checkpoint.step)
        return
    splits = plan.splits
    rows = {"train_rows": len(splits.train), "validation_rows": len(splits.validation)}
    if isinstance(splits.train, StreamedSubset) and plan.sampler.dealt:
        told = splits.train.order_told(plan.sampler.batch_size, plan.job.data.shards)
        if count > plan.job.data.shards:
            told += f"; several of the {count} workers read each shard, which data.shards={count} spares"
        recorder.event("note", told)
    for note in plan.lightning.notes if plan.lightning else ():
        recorder.event("note", note)
    chance = {} if math.isnan(plan.chance_loss) else {"chance_loss": plan.chance_loss}
    recorder.event("started", f"starts{again} with {workers}", step=0, **scored(plan), **chance, **rows)


def scored(plan: Plan) -> dict[str, object]:
    """What a diagnosis must know of the task: how many classes a row is one of; else its score and that of a guess."""
    task = plan.task
    if isinstance(task, Classification):
        return {"classes": task.outputs}
    chance = {} if math.isnan(task.chance) else {"chance": task.chance}
    return {"score": task.score, **chance} if task.score else {}
