"""The training loop: plain PyTorch, read from top to bottom. It knows workers only as a `Group` and never imports Ray.

One call of `train` is one attempt: it starts from the newest valid checkpoint of the run folder, or from scratch, and
ends when the run is finished, when it is asked to stop, or when the loss is no longer a number. Everything random is a
function of (seed, epoch, step, row), so an attempt that resumes continues exactly as if nothing had happened.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import NoReturn

import torch
from torch import Tensor

from lehr.curves.live import diagnose_live
from lehr.data.batches import batches
from lehr.data.dataset import Batch, DataSubset
from lehr.data.randomness import key
from lehr.errors import TrainingError
from lehr.job import job_hash
from lehr.runs import Checkpoint, RunFolder, write_model
from lehr.runs.checkpoints import load, name_of, newest_valid, prune, save
from lehr.runs.records import read_epochs
from lehr.training.averaging import STATISTICS_ROWS, Average
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.metric_logger import MetricLogger
from lehr.training.setup import Plan
from lehr.training.stopping import Best
from lehr.training.stopwatch import Stopwatch
from lehr.training.updates import Updates, network

EXPLODED = 1000.0
"""A loss above this many times that of the first step (or 1, if that is more) never comes back, finite or not."""


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


class Diverged(TrainingError):
    """The loss exploded: it is no longer a finite number, or far beyond any that training could bring down."""


def train(
    plan: Plan,
    run: RunFolder,
    group: Group,
    should_stop: Callable[[], str | None] = lambda: None,
    after_epoch: Callable[[Mapping[str, float]], str | None] | None = None,
    must_save: Callable[[], str | None] = lambda: None,
) -> str:
    """Trains to the end of the job from wherever the run folder says, and writes records, checkpoints and the model.

    Args:
        plan: the same on every worker.
        run: the run folder, reachable from every worker; only the first worker writes.
        should_stop: asked by the first worker about twice a second; a reason makes all workers save and stop.
        after_epoch: told by the first worker what every epoch measured (`epoch` from 1, `step`, and the metrics), after
            it is recorded; a reason ends the training there, and what it learned is kept.
        must_save: asked by the first worker about twice a second; a reason that it has not given before makes it save a
            checkpoint at once, and the training goes on.

    Returns:
        How it ended: `finished` or `stopped`.

    Raises:
        Diverged: the loss became NaN or infinite before anything worth keeping was learned.
    """
    attempt = Attempt(plan, run, group, should_stop, after_epoch, must_save)
    with closing(attempt.journal):
        return _to_an_end(attempt)


def _to_an_end(attempt: Attempt) -> str:
    try:
        ending = attempt.run()
    except Stopped as stopped:
        attempt.journal.finish("stopped", str(stopped), attempt.step, attempt.best)
        return "stopped"
    except Diverged as diverged:
        if attempt.best.step is None:
            attempt.journal.finish("failed", str(diverged), attempt.step, attempt.best)
            raise
        attempt.journal.event("diverged", str(diverged), step=attempt.step)
        ending = f"{diverged}; kept the best model before it, of epoch {attempt.best.epoch}"
    attempt.keep_best_model()
    attempt.journal.finish("finished", ending, attempt.step, attempt.best)
    return "finished"


class Attempt:
    """One attempt at a run: the model, the optimizer and the position in the run."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        group: Group,
        should_stop: Callable[[], str | None],
        after_epoch: Callable[[Mapping[str, float]], str | None] | None,
        must_save: Callable[[], str | None],
    ) -> None:
        section, plan = plan.job.train, plan.on(group.device)
        self.plan, self.folder, self.group, self.after_epoch = plan, run.folder, group, after_epoch
        self.must_save, self.warned = must_save, ""
        self.watch = Stopwatch()
        self.journal = MetricLogger(plan, run, group, should_stop, self.watch)
        self.model = network(plan, group)
        self.updates = Updates(plan, self.model, group)
        self.journal.communication = self.updates.communication
        fixed = plan.job.finetune is not None and plan.job.finetune.batch_norm == "frozen"
        self.average = Average(section.averaging, self.model, plan.clock, fixed) if section.averaging else None
        self.step, self.epoch_loss = 0, 0.0
        self.first_loss: float | None = None
        self.best = Best(section.metric)
        self.patience = Best((section.early_stopping and section.early_stopping.metric) or section.metric)
        self.history: list[dict[str, float]] = []  # of each epoch, what a diagnosis during training looks at
        self.ended: str | None = None  # why `after_epoch` ended the training
        some = plan.splits.train.order(key(plan.job.seed, "clean"))
        self.clean = plan.splits.train.subset(some[: min(section.clean_subset, len(plan.splits.validation))])
        self._resume()

    # ── the run, from the outside in ────────────────────────────────────────────────────────────────────────────────

    def run(self) -> str:
        """Trains until the job is done; returns the sentence that says why it ended."""
        early = self.plan.job.train.early_stopping
        self._ask_again()
        while self.step < self.plan.clock.total_steps and not self.ended:
            if early and self.patience.stale >= early.patience and self.patience.value is not None:
                ending = (
                    f"stopped early after epoch {self.step // self.plan.clock.steps_per_epoch}: {self.patience.metric} "
                    f"has not improved for {self.patience.stale} epochs"
                )
                self.journal.event("early_stop", ending, step=self.step)
                return ending
            if (clear := self._diagnosis()) and clear[0] in self.plan.job.train.stop_on:
                ending = f"stopped early after epoch {self.step // self.plan.clock.steps_per_epoch}: {clear[1]}"
                self.journal.event("early_stop", ending, step=self.step, diagnosis=clear[0])
                return ending
            self._run_epoch(self.step // self.plan.clock.steps_per_epoch)
        if self.ended:
            self.journal.event("ended_early", self.ended, step=self.step)
        return self.ended or "all epochs done"

    def _run_epoch(self, epoch: int) -> None:
        for batch, rows in self._batches(epoch):
            self._train_step(batch, rows)
            self.step += 1
            end = self.step % self.plan.clock.steps_per_epoch == 0
            due = self.step % self.plan.checkpoint_every == 0 or self.step in self.plan.snapshots
            met = end or due or self.journal.pulse_due(self.step)
            stop = self._pulse() if met else None
            if end:
                self._finish_epoch(epoch)
            if due or stop or (met and self._warned()) or self.step in (self.plan.clock.total_steps, self.best.step):
                self._save()
            if stop:
                raise Stopped(stop)

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """This worker's part of each global batch left in the epoch, and the number of rows of the whole batch."""
        epochs, rows = self.plan.epochs, self.plan.splits.train
        first, group = self.step % epochs.steps, self.group
        found = batches(rows, epochs, self.plan.augment, epoch, first, group.rank, group.size, group.device)
        for i in range(first, epochs.steps):
            with self.watch.time("input"):
                batch = next(found)
            yield batch, epochs.size(i)

    def _train_step(self, batch: Batch, rows: int) -> None:
        with self.watch.time("compute"):
            loss, norm, update = self.updates.take(batch, rows, self.step)
            if self.average:
                self.average.update(self.model, self.step + 1)
        self.journal.step(loss, norm, update)

    # ── what happens between steps ──────────────────────────────────────────────────────────────────────────────────

    def _pulse(self) -> str | None:
        """Brings the workers together: all learn the same, and decide the same. Returns why to stop, if so."""
        with self.watch.time("records"):
            pulse = self.journal.pulse(self.step, self.best)
        first = self.step - len(pulse.losses)
        for step, loss in enumerate(pulse.losses, first):
            if self.first_loss is None:
                self.first_loss = loss
            if not math.isfinite(loss) or loss > EXPLODED * max(self.first_loss, 1.0):
                self._diverged("loss", step, loss)
            self.epoch_loss += loss  # one by one: how timing groups them into pulses must not show in the last digit
        return pulse.stop

    def _finish_epoch(self, epoch: int) -> None:
        with self.watch.time("evaluation"):
            self.updates.settle()
            metrics = self._measure("validation", self.plan.splits.validation)
            if not math.isfinite(metrics["validation_loss"]):
                self._diverged("validation loss", self.step - 1, metrics["validation_loss"])
            if len(self.clean):
                metrics |= self._measure("clean_train", self.clean)
            if self.average and self.average.count(self.step):
                with self.average.applied_to(self.model):
                    if self.average.needs_refresh(self.step):
                        self.average.refresh(self.model, self._statistics(), self.step)
                    metrics |= self._measure("averaged_validation", self.plan.splits.validation)
        metrics["train_loss"] = self.epoch_loss / self.plan.clock.steps_per_epoch
        self.epoch_loss = 0.0
        early = self.plan.job.train.early_stopping
        self.history.append({name: metrics[name] for name in ("train_loss", "validation_accuracy") if name in metrics})
        self.best = self.best.update(metrics.get(self.best.metric, math.nan), self.step, epoch + 1)
        self.patience = self.patience.update(
            metrics.get(self.patience.metric, math.nan), self.step, epoch + 1, early.min_change if early else 0.0
        )
        with self.watch.time("records"):
            rows = self.plan.splits.train
            if rows.decodes_lazily:  # else no worker has news, and asking them all costs milliseconds
                for image in rows.add_unreadable(dict(ChainMap(*self.group.gather(rows.unreadable())))):
                    self.journal.event("unreadable", f"skipped {image}", step=self.step)
            self.journal.epoch(epoch + 1, self.step, metrics, self.best, self._diagnosis())
        if self.after_epoch:
            row = {"epoch": epoch + 1, "step": self.step, **metrics}
            self.ended = self.group.broadcast(self.after_epoch(row) if self.group.first else None)

    def _ask_again(self) -> None:
        """After a resume at the end of an epoch: hears again what was said of it, which may have been to end there."""
        if not self.after_epoch or not self.step or self.step % self.plan.clock.steps_per_epoch:
            return
        rows = read_epochs(self.folder).to_pylist()[-1:] if self.group.first else []
        known = [{name: value for name, value in row.items() if value is not None} for row in rows]
        self.ended = self.group.broadcast(self.after_epoch(known[0]) if known else None)

    def _diagnosis(self) -> tuple[str, str] | None:
        """What the epochs so far make clear: the same on every worker, and the same after a resume."""
        rows, epochs = len(self.plan.splits.validation), self.plan.job.train.epochs
        return diagnose_live(self.history, classes=self.plan.task.outputs, validation_rows=rows, epochs=epochs)

    def _statistics(self) -> Iterator[Tensor]:
        """Clean training rows, as the network takes them, to compute batch-norm statistics on: the same every time."""
        job, rows = self.plan.job, self.plan.splits.train
        assert job.train.averaging is not None
        torch.manual_seed(key(job.seed, "statistics"))
        chosen = rows.order(key(job.seed, "statistics"))[: job.train.averaging.statistics_rows or STATISTICS_ROWS]
        parts = chosen.tensor_split(-(-len(chosen) * job.train.accumulate // job.train.batch_size))
        for batch in rows.batches([part[self.group.rank :: self.group.size] for part in parts]):
            yield self.plan.inputs(batch.to(self.group.device).inputs)

    def _measure(self, split: str, rows: DataSubset) -> dict[str, float]:
        return {f"{split}_{k}": v for k, v in evaluate(self.model, rows, self.plan, self.group).items()}

    def _diverged(self, what: str, step: int, value: float) -> NoReturn:
        raise Diverged(
            f"the {what} became {value:.3g} at step {step} (epoch {step // self.plan.clock.steps_per_epoch + 1}) with "
            f"learning rate {self.plan.rate(step):.3g}; try a lower optimizer.lr, a schedule.warmup or train.clip"
        )

    def _warned(self) -> bool:
        """Whether there is news that these workers may end soon. Only the first worker is asked: it alone saves."""
        reason = self.must_save() if self.group.first else None
        news = reason is not None and reason != self.warned
        if news:
            self.warned = reason or ""
            self.journal.event("warned", f"{reason}: saves a checkpoint at once", step=self.step)
        return news

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _save(self) -> None:
        if not self.group.first:
            return
        with self.watch.time("checkpoints"):
            self.journal.flush()
            name = save(
                self.folder,
                Checkpoint(
                    step=self.step,
                    model=self.model.state_dict(),
                    average=self.average.weights if self.average else None,
                    optimizer=self.updates.optimizer.state_dict(),
                    state={
                        "epoch": self.step / self.plan.clock.steps_per_epoch,
                        "job_hash": job_hash(self.plan.job),
                        "best": self.best.to_dict(),
                        "patience": self.patience.to_dict(),
                        "epoch_loss": self.epoch_loss,
                        "first_loss": self.first_loss,
                        "scaler": self.updates.scaler.state_dict(),
                        "history": self.history,
                        "covered": self.journal.covered(),
                    },
                ),
            )
            self.journal.saved(name)
            best = {self.best.step} if self.best.step else set()
            prune(self.folder, self.plan.job.train.checkpoint.keep, best | self.plan.snapshots)

    def _resume(self) -> None:
        """Goes on from the newest valid checkpoint, if there is one. The first worker chooses it for all."""
        chosen, notes = newest_valid(self.folder, _best_of) if self.group.first else (None, [])
        name = self.group.broadcast(name_of(chosen.step) if chosen else None)
        checkpoint = chosen if self.group.first or name is None else load(self.folder, name)
        if checkpoint:
            self.model.load_state_dict(checkpoint.model)
            self.updates.optimizer.load_state_dict(checkpoint.optimizer or {})
            if scaler := checkpoint.state.get("scaler"):
                self.updates.scaler.load_state_dict(scaler)
            if self.average and checkpoint.average:
                self.average.load(checkpoint.average)
            self.step, self.epoch_loss = checkpoint.step, checkpoint.state["epoch_loss"]
            self.first_loss = checkpoint.state.get("first_loss")
            self.history = list(checkpoint.state.get("history", []))
            self.best, self.patience = Best(**checkpoint.state["best"]), Best(**checkpoint.state["patience"])
        self.journal.begin(checkpoint, notes, self.best)

    def keep_best_model(self) -> None:
        """Scores the best weights on the test split, if there is one, and writes them as the run's model."""
        assert self.best.step is not None
        self.group.barrier()
        with self.watch.time("checkpoints"):
            best = load(self.folder, name_of(self.best.step))
        averaged = self.best.metric.startswith("averaged_") and best.average is not None
        weights = best.average if averaged and best.average else best.model
        self.model.load_state_dict(weights)
        test = {}
        if self.plan.splits.test:
            with self.watch.time("evaluation"):
                test = self._measure("test", self.plan.splits.test)
            self.journal.metrics(test)
        if self.group.first:
            about = {"step": self.best.step, "epoch": self.best.epoch, "weights": "average" if averaged else "raw"}
            metrics = {self.best.metric: self.best.value, **test}
            with self.watch.time("checkpoints"):
                write_model(self.folder, weights, {**self.plan.describe_model(), "from": about, "metrics": metrics})


def _best_of(checkpoint: Checkpoint) -> int | None:
    """The step of the best model so far: what a run that goes on from this checkpoint may have to end with."""
    step: int | None = checkpoint.state["best"]["step"]
    return step
