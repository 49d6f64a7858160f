"""The training loop: plain PyTorch, to be read from top to bottom. It knows workers only as a `Group`, and no Ray.

One call of `train` is one attempt. It starts from the newest valid checkpoint of the run folder, or from scratch, and
ends when the run is finished, when somebody asks it to stop, or when the loss explodes. Everything random is a function
of (seed, epoch, step, row), so an attempt that resumes continues exactly as if nothing had happened.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

from lehr.curves.live import diagnose_live
from lehr.data.batches import batches
from lehr.data.dataset import Batch, DataSubset
from lehr.data.survey import survey
from lehr.errors import TrainingError
from lehr.formatting import stop_reason
from lehr.job import job_hash
from lehr.runs import Checkpoint, RunFolder, Survey
from lehr.runs.checkpoints import load, prune, save
from lehr.runs.progress import LiveDiagnosis
from lehr.runs.records import read_epochs
from lehr.tasks.classification import Classification
from lehr.training.answers import answers
from lehr.training.evaluation import evaluate, statistics_inputs
from lehr.training.examples import Predicted, examples, predict_validation
from lehr.training.group import Group
from lehr.training.lightning_step import train_step_of, trainer_of
from lehr.training.prepare import prepare_model
from lehr.training.resume import (
    begin_logging,
    best_left,
    describe_lost_best,
    epochs_until,
    find_resume_point,
    in_recorded_order,
    load_step,
)
from lehr.training.setup import Plan
from lehr.training.state import TrainingState
from lehr.training.stopping import Best, Enough, Leaving, early_stop, first_exploded
from lehr.training.stopwatch import Stopwatch
from lehr.training.synchronisation import StepBuffer, Synchroniser
from lehr.training.telling import Teller


class Stopped(Exception):
    """Somebody asked the run to stop; its state is saved.

    Attributes:
        for_good: whether the run is finished with that.
        leaving: whether only these workers end, and others go on with the run.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.for_good = isinstance(reason, Enough)
        self.leaving = isinstance(reason, Leaving)


class Diverged(TrainingError):
    """The loss exploded: it is no longer a finite number, or far above any from which training recovers."""


@dataclass(frozen=True)
class Caller:
    """How the loop talks to its caller, on the first worker only; `train` documents each of them."""

    should_stop: Callable[[], str | None]
    after_epoch: Callable[[Mapping[str, float]], str | None] | None
    must_leave: Callable[[], str | None]
    wants_answers: bool


def train(
    plan: Plan,
    run: RunFolder,
    group: Group,
    should_stop: Callable[[], str | None] = lambda: None,
    after_epoch: Callable[[Mapping[str, float]], str | None] | None = None,
    must_leave: Callable[[], str | None] = lambda: None,
    wants_answers: bool | None = None,
) -> Literal["finished", "stopped", "left"]:
    """Trains from the newest checkpoint of the run folder to the end of the job, and writes the model.

    Args:
        plan: the same on every worker.
        run: the run folder, reachable from every worker; only the first worker writes to it.
        should_stop: called by the first worker about twice a second; a reason makes all workers save and stop. With
            `Enough`, the run is finished at once, whole epochs or not, and the best model so far is kept.
        after_epoch: called by the first worker with what every epoch measured (`epoch` from 1, `step`, the `seconds`
            that it took, the `warm_up` among them, and the metrics), after it is recorded; a reason ends the training
            there, and the best model so far is kept.
        must_leave: called by the first worker about twice a second; a reason, such as a machine that is about to be
            taken away, makes all workers save a checkpoint and leave. The run has not ended with that.
        wants_answers: whether what the model says of each validation row is kept for a report. By default unless there
            is `after_epoch`: of a trial nobody looks at single answers.

    Returns:
        How it ended; `left` where other workers have to go on.

    Raises:
        Diverged: the loss exploded before there was a model worth keeping.
    """
    wanted = after_epoch is None if wants_answers is None else wants_answers
    attempt = Attempt(plan.to(group.device), run, group, Caller(should_stop, after_epoch, must_leave, wanted))
    with closing(attempt.logger):
        try:
            ending = attempt.train()
        except Stopped as stopped:
            ending = stop_reason(str(stopped))
            if stopped.leaving:
                attempt.logger.event("warned", f"{ending}; saved a checkpoint", step=attempt.state.step)
                if group.first:
                    run.note_loss(ending)
                return "left"
            if not stopped.for_good:
                attempt.teller.tell("run_end", attempt.state, status="stopped", message=ending)
                attempt.logger.finish("stopped", ending, attempt.state)
                return "stopped"
            attempt.logger.event("ended_early", ending, step=attempt.state.step)
        except Diverged as diverged:
            if attempt.state.best.step is None:
                attempt.teller.tell("run_end", attempt.state, status="failed", message=str(diverged))
                attempt.logger.finish("failed", str(diverged), attempt.state)
                raise
            attempt.logger.event("diverged", str(diverged), step=attempt.state.step)
            ending = f"{diverged}; kept the best model before it, of epoch {attempt.state.best.epoch}"
        metrics = attempt.write_best_model()
        attempt.teller.tell("run_end", attempt.state, status="finished", message=ending, metrics=metrics)
        attempt.logger.finish("finished", ending, attempt.state)
        return "finished"


class Attempt:
    """One attempt at a run. Every worker has one, and they are in the same state after every step."""

    def __init__(self, plan: Plan, run: RunFolder, group: Group, caller: Caller) -> None:
        self.plan, self.run, self.folder, self.group, self.caller = plan, run, run.folder, group, caller
        self.stopwatch = Stopwatch()
        self.learner = Learner(plan, group)
        # Before the checkpoint is chosen: from now on nobody else saves or prunes one.
        attempt = run.claim_attempt(workers=group.size).number if group.first else 0
        resume = find_resume_point(run.folder, group)
        if resume.checkpoint:
            self.learner.restore(resume.checkpoint)
            self.plan = self.learner.plan
        self.state = resume.state(TrainingState.start(plan.job))
        self.teller = Teller(plan, run, group, self.learner.model, attempt, resume.checkpoint)
        self.logger = begin_logging(plan, run, group, self.stopwatch, self.state, resume)
        self.steps = StepBuffer(self.stopwatch)
        self.synchroniser = Synchroniser(group, self.state.step)
        self.predicted: Predicted | None = None  # for the validation rows, by the model that is kept

    # ── the epochs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self) -> str:
        """Trains epoch after epoch; returns the sentence that says why it ended."""
        self.teller.tell("run_start", self.state)
        ended = self._report_last_epoch()
        self.teller.resumed(self.state)
        while not ended and self.state.step < self.plan.length.total_steps:
            epoch = self.state.step // self.plan.length.steps_per_epoch
            diagnosis = live_diagnosis(self.plan, self.state)
            if early := early_stop(self.plan.job.train, self.state.patience, diagnosis):
                ending = f"stopped early after epoch {epoch}: {early.sentence}"
                self.logger.event("early_stop", ending, step=self.state.step, **early.details)
                return ending
            ended = self._train_epoch(epoch)
        if ended:
            self.logger.event("ended_early", ended, step=self.state.step)
        return ended or "all epochs done"

    def _train_epoch(self, epoch: int) -> str | None:
        """Trains to the end of the epoch; returns why training ends there, if `after_epoch` says so."""
        plan, ended = self.plan, None
        for batch, rows in self._batches(epoch):
            self._take_step(batch, rows)
            step = self.state.step
            at_end = step % plan.length.steps_per_epoch == 0
            save_due = step % plan.checkpoint_every == 0 or step in plan.snapshots
            synchronise = at_end or save_due or self.synchroniser.due(step)
            stop = self._synchronise() if synchronise else None
            if at_end:
                ended = self._finish_epoch(epoch + 1)
            last_or_best = step in (plan.length.total_steps, self.state.best.step)
            if save_due or stop or last_or_best:
                self._save()
            if stop and not (isinstance(stop, Enough) and step == plan.length.total_steps):
                raise Stopped(stop)
        return ended

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """This worker's part of each global batch left in the epoch, and the number of rows of the whole batch."""
        rows, sampler, group = self.plan.splits.train, self.plan.sampler, self.group
        first = self.state.step % sampler.steps
        found = batches(rows, sampler, self.plan.augment, epoch, first, group.rank, group.size, group.device)
        for i in range(first, sampler.steps):
            with self.stopwatch.time("input"):
                batch = next(found)
            yield batch, sampler.size(i)

    # ── one step, and what happens between steps ────────────────────────────────────────────────────────────────────

    def _take_step(self, batch: Batch, rows: int) -> None:
        with self.stopwatch.time("compute"):
            result = self.learner.train_step(batch, rows, self.state.step)  # forward, backward, clip, optimizer step
            self.state = self.state.after_step()
            if self.learner.average:
                self.learner.average.update(self.learner.model, self.state.step)
        self.steps.add(result)
        if self.state.step == 1:
            self._survey()

    def _survey(self) -> None:
        """Records what rows and network are like, after the first step of a run. Only the first worker does. What
        another trial of the same run found of the same rows is in the run folder already."""
        network = self.learner.train_step.network
        if not self.group.first or network is None:
            return
        with self.stopwatch.time("records"):
            known = Survey.read(self.folder).data
            rows = known if known.train.rows else survey(self.plan.splits, self.plan.job.seed)
            found = Survey(rows, replace(network, flops=self.plan.flops))
            self.logger.check()
            found.write(self.folder)

    def _synchronise(self) -> str | None:
        """Brings the workers together: all learn the losses, and decide the same. Returns why to stop, if so."""
        with self.stopwatch.time("records"):
            reason = self._asked() if self.group.first else None
        with self.stopwatch.time("compute"):  # a GPU's work is waited for here
            losses, stop = self.synchroniser.synchronise(self.state.step, self.steps.losses(), reason)
        with self.stopwatch.time("records"):
            self.logger.steps(self.state, losses, self.steps, self.learner.train_step.communication_seconds())
        self.steps.clear()
        if (exploded := first_exploded(losses, self.state.first_loss)) is not None:
            raise diverged(self.plan, "loss", self.state.step - len(losses) + exploded, losses[exploded])
        self.state = self.state.with_losses(losses)
        return stop

    def _asked(self) -> str | None:
        """Why to stop, as the first worker knows it."""
        if reason := self.caller.should_stop():
            return reason
        notice = self.caller.must_leave()
        return Leaving(notice) if notice else None

    def _finish_epoch(self, epoch: int) -> str | None:
        """Evaluates and records epoch `epoch`, counted from 1; returns why training ends here, if it does."""
        with self.stopwatch.time("evaluation"):
            metrics = self.learner.evaluate(self.state.step)
        metrics["train_loss"] = self.state.epoch_loss / self.plan.length.steps_per_epoch
        early = self.plan.job.train.early_stopping
        self.state = self.state.after_epoch(epoch, metrics, early.min_change if early else 0.0)
        with self.stopwatch.time("records"):
            for image in newly_unreadable(self.plan.splits.train, self.group):
                self.logger.event("unreadable", f"skipped {image}", step=self.state.step)
            self.logger.epoch(epoch, self.state, metrics, live_diagnosis(self.plan, self.state))
        rate = self.plan.learning_rate(self.state.step - 1)
        asked = self.teller.epoch(self.state, {**metrics, "learning_rate": rate}, self._save_untold)
        times = {"seconds": self.logger.epoch_seconds, "warm_up": self.logger.warm_up}
        row = {"epoch": epoch, "step": self.state.step, **times, **metrics}
        return self._report_epoch(row) or asked

    def _report_epoch(self, row: Mapping[str, float] | None) -> str | None:
        """Passes what an epoch measured to `after_epoch`; returns its answer on every worker."""
        if not self.caller.after_epoch:
            return None
        return self.group.broadcast(self.caller.after_epoch(row) if self.group.first and row else None)

    def _report_last_epoch(self) -> str | None:
        """After a resume at the end of an epoch, reports it again: the answer may have been to end there."""
        wanted = self.caller.after_epoch or self.plan.job.callbacks
        if not wanted or not self.state.step or self.state.step % self.plan.length.steps_per_epoch:
            return None
        rows = read_epochs(self.folder).to_pylist()[-1:] if self.group.first else []
        known = {name: value for row in rows for name, value in row.items() if value is not None}
        asked = self.teller.epoch(self.state, known, self._save_untold)
        return self._report_epoch(known or None) or asked

    # ── checkpoints, and the model at the end ───────────────────────────────────────────────────────────────────────

    def _save(self) -> None:
        """Saves a checkpoint, after all records up to it, and tells of it. Only the first worker does."""
        if self.group.first:
            self.teller.saved(self.state, self._save_untold())

    def _save_untold(self) -> str:
        with self.stopwatch.time("checkpoints"):
            logger = self.logger
            logger.flush()
            checkpoint = self.learner.checkpoint(self.state, logger.covered(), logger.attempt)
            if self.plan.job.callbacks:
                checkpoint.state["callbacks"] = self.teller.callbacks.state()
            name = save(self.folder, checkpoint, logger.check)
            logger.saved(name)
            best = {self.state.best.step} if self.state.best.step else set()
            keep = best | self.plan.snapshots
            prune(self.folder, self.plan.job.train.checkpoint.keep, keep, logger.attempt, logger.check)
        return name

    def write_best_model(self) -> dict[str, float]:
        """Scores the best weights on the test split, if there is one, and writes them as the run's model.

        Returns its metrics.
        """
        with self.stopwatch.time("checkpoints"):
            best, checkpoint = self._best_on_disk()
        average = checkpoint.average if checkpoint and best.metric.startswith("averaged_") else None
        if checkpoint:  # else the last weights, which the model has
            self.learner.model.load_state_dict(average or checkpoint.model)
        test = {}
        self._choose()
        if self.plan.splits.test:
            with self.stopwatch.time("evaluation"):
                test = self.learner.measure("test", self.plan.splits.test)
            self.logger.test(test)
            self.teller.tell("evaluation_end", self.state, metrics=test)
        if self.caller.wants_answers:
            self._answer()
        weights = average or (checkpoint.model if checkpoint else self.learner.model.state_dict())
        if self.group.first:
            steps = self.state.step if best.step is None else best.step
            trained = self.plan.trained(self.learner.model, steps)
            origin = {"step": best.step, "epoch": best.epoch, "weights": "average" if average else "raw", **trained}
            description = replace(self.plan.describe_model(), origin=origin, metrics={best.metric: best.value, **test})
            with self.stopwatch.time("checkpoints"):
                self.run.write_model(weights, description.to_json())
        return {**({} if best.value is None else {best.metric: best.value}), **test}

    def _choose(self) -> None:
        """Lets the task choose on the validation rows what it keeps with the model, the same on every worker."""
        task = self.plan.task
        if not (task.chooses or (task.shows and not self.caller.after_epoch)):
            return
        with self.stopwatch.time("evaluation"):
            self.predicted = predict_validation(self.learner.model, self.plan, self.group)
            found = self.predicted
            chosen = task.choices(found.values, found.labels) if task.chooses and found else {}
            chosen = self.group.broadcast(chosen)
        if chosen:
            self.plan = self.learner.plan = replace(self.plan, task=task.with_choices(chosen))

    def _answer(self) -> None:
        """Records what the model says of each validation row. Only the first worker does."""
        if self.predicted and self.plan.task.shows:
            with self.stopwatch.time("records"):
                self.logger.check()
                if shown := examples(self.predicted, self.plan):
                    shown[0].write(self.folder, self.predicted.ids, shown[1])
        if not isinstance(self.plan.task, Classification):
            return
        with self.stopwatch.time("evaluation"):
            found = answers(self.learner.model, self.plan, self.group)
        if found:
            with self.stopwatch.time("records"):
                self.logger.check()
                found.write(self.folder)

    def _best_on_disk(self) -> tuple[Best, Checkpoint | None]:
        """The best model so far with its checkpoint, the same on every worker.

        If that checkpoint is lost, it is the best one that is left; None where none is.
        """
        self.group.barrier()
        best, checkpoint = self.state.best, None
        if self.group.first and best.step is not None:  # else the metric never was a number
            checkpoint = load_step(self.folder, best.step)
            if checkpoint is None:
                left = best_left(self.folder, best, epochs_until(self.folder, self.state.step))
                self.logger.event("best_lost", describe_lost_best(best, left), step=self.state.step)
                best, checkpoint = left, load_step(self.folder, left.step)
        best, name = self.group.broadcast((best, checkpoint.name if checkpoint else None))
        self.state = replace(self.state, best=best)
        return best, checkpoint if self.group.first or name is None else load(self.folder, name)


class Learner:
    """The network and what trains it: all that a checkpoint holds beside how far training is."""

    def __init__(self, plan: Plan, group: Group) -> None:
        self.plan, self.group = plan, group
        self.model = prepare_model(plan, group)
        self.train_step = train_step_of(plan, self.model, group)
        self.average = plan.build_average(self.model)

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics of the weights after `step` steps, and of their average, over whole splits."""
        splits = self.plan.splits
        self.train_step.sync_statistics()
        metrics = self.measure("validation", splits.validation)
        if not math.isfinite(metrics["validation_loss"]):
            raise diverged(self.plan, "validation loss", step - 1, metrics["validation_loss"])
        if len(self.plan.clean_train):
            metrics |= self.measure("clean_train", self.plan.clean_train)
        if self.average and self.average.count(step):
            with self.average.applied_to(self.model):
                if self.average.has_stale_statistics(step):
                    self.average.recompute_statistics(self.model, statistics_inputs(self.plan, self.group), step)
                metrics |= self.measure("averaged_validation", splits.validation)
        return metrics

    def measure(self, split: str, rows: DataSubset) -> dict[str, float]:
        """The metrics over all of `rows`, with the name of the split before theirs."""
        found = evaluate(self.model, rows, self.plan, self.group, split=split)
        return {f"{split}_{name}": value for name, value in found.items()}

    def checkpoint(self, state: TrainingState, covered: dict[str, dict[str, int]], attempt: int) -> Checkpoint:
        """A checkpoint of what is trained, and how far it is.

        Args:
            covered: the record parts up to here, how many of each attempt.
            attempt: the number of this one.
        """
        return Checkpoint(
            step=state.step,
            model=self.model.state_dict(),
            average=self.average.weights if self.average else None,
            optimizer=self.train_step.optimizer.state_dict(),
            state={
                "epoch": state.step / self.plan.length.steps_per_epoch,
                "job_hash": job_hash(self.plan.job),
                "shards": self.plan.sampler.shards if self.plan.splits.train.decodes_lazily else 0,
                **state.to_json(),
                "scaler": self.train_step.scaler.state_dict(),
                "covered": covered,
            },
            attempt=attempt,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts the model, its average, the optimizer and the loss scaler into the state that a checkpoint holds."""
        self.plan = self.train_step.plan = in_recorded_order(self.plan, checkpoint)
        self.model.load_state_dict(checkpoint.model)
        self.train_step.load(checkpoint.optimizer or {}, checkpoint.state.get("scaler"))
        if self.plan.lightning:
            trainer_of(self.model).step = max(0, checkpoint.step - 1)
        if self.average and checkpoint.average:
            self.average.load(checkpoint.average)


def newly_unreadable(rows: DataSubset, group: Group) -> list[str]:
    """The images that turned out to be unreadable on some worker since this was asked last."""
    if not rows.decodes_lazily:
        return []  # no worker has news, and asking them all costs milliseconds
    return rows.add_unreadable(dict(ChainMap(*group.gather(rows.unreadable()))))


def live_diagnosis(plan: Plan, state: TrainingState) -> LiveDiagnosis:
    """What the epochs so far make clear: the same on every worker, and the same after a resume."""
    rows, epochs = len(plan.splits.validation), plan.job.train.epochs
    found = diagnose_live(
        state.history,
        classes=plan.task.outputs,
        chance_loss=plan.chance_loss,
        validation_rows=rows,
        epochs=epochs,
    )
    return LiveDiagnosis(*found) if found else LiveDiagnosis()


def diverged(plan: Plan, what: str, step: int, value: float) -> Diverged:
    """The error for a loss that exploded at a step, with what to try."""
    return Diverged(
        f"the {what} became {value:.3g} at step {step} (epoch {step // plan.length.steps_per_epoch + 1}) with "
        f"learning rate {plan.learning_rate(step):.3g}; try a lower optimizer.lr, a schedule.warmup "
        "or train.max_gradient_norm"
    )
