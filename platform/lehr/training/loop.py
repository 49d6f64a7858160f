"""The training loop: plain PyTorch, read from top to bottom. It knows workers only as a `Group` and never imports Ray.

One call of `train` is one attempt: it starts from the newest valid checkpoint of the run folder, or from scratch, and
ends when the run is finished, when it is asked to stop, or when the loss is no longer a number. Everything random is a
function of (seed, epoch, step, row), so an attempt that resumes continues exactly as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NoReturn

import torch
from torch import Tensor, nn

from lehr.data.dataset import Batch, Rows
from lehr.data.randomness import key, permutation
from lehr.errors import TrainingError
from lehr.job import job_hash
from lehr.runs import Checkpoint, RunFolder, write_model
from lehr.runs.checkpoints import load, name_of, newest_valid, prune, save
from lehr.training.averaging import Average
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.journal import Journal
from lehr.training.optimizers import build_optimizer
from lehr.training.setup import Plan
from lehr.training.stopping import Best
from lehr.training.stopwatch import Stopwatch

UPDATE_EVERY = 10  # steps between measurements of the relative update size, which costs a copy of the weights


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


class Diverged(TrainingError):
    """The loss is no longer a finite number."""


def train(plan: Plan, run: RunFolder, group: Group, should_stop: Callable[[], str | None] = lambda: None) -> str:
    """Trains to the end of the job from wherever the run folder says, and writes records, checkpoints and the model.

    Args:
        plan: the same on every worker.
        run: the run folder, reachable from every worker; only the first worker writes.
        should_stop: asked by the first worker about twice a second; a reason makes all workers save and stop.

    Returns:
        How it ended: `finished` or `stopped`.

    Raises:
        Diverged: the loss became NaN or infinite before anything worth keeping was learned.
    """
    attempt = Attempt(plan, run, group, should_stop)
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

    def __init__(self, plan: Plan, run: RunFolder, group: Group, should_stop: Callable[[], str | None]) -> None:
        section = plan.job.train
        self.plan, self.folder, self.group = plan, run.folder, group
        self.watch = Stopwatch()
        self.journal = Journal(plan, run, group, should_stop, self.watch)
        self.model = plan.build_model().to(group.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(plan.job, self.model)
        self.parallel = group.parallel(self.model)
        self._warm_up()
        self.average = Average(self.model, section.averaging.decay) if section.averaging else None
        self.step, self.epoch_loss = 0, 0.0
        self.best = Best(section.metric)
        self.patience = Best((section.early_stopping and section.early_stopping.metric) or section.metric)
        some = permutation(key(plan.job.seed, "clean"), len(plan.splits.train))
        self.clean = plan.splits.train.subset(some[: min(section.clean_subset, len(plan.splits.validation))])
        self._resume()

    def _warm_up(self) -> None:
        """One forward and backward pass whose gradients are thrown away.

        DDP lays out its gradient buckets anew after the first backward pass, and the layout decides in which order the
        workers' gradients are added. Doing that before the first real step makes a resumed run equal to the last digit.
        """
        if self.group.size == 1:
            return
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        positions = self.plan.epochs.positions(self.plan.epochs.order(0), 0, self.group.rank, self.group.size)
        batch = self.plan.splits.train.gather(positions).to(self.group.device)
        self._loss(batch, rows=1).backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(value)

    # ── the run, from the outside in ────────────────────────────────────────────────────────────────────────────────

    def run(self) -> str:
        """Trains until the job is done; returns the sentence that says why it ended."""
        early = self.plan.job.train.early_stopping
        while self.step < self.plan.clock.total_steps:
            if early and self.patience.stale >= early.patience and self.patience.value is not None:
                ending = (
                    f"stopped early after epoch {self.step // self.plan.clock.steps_per_epoch}: {self.patience.metric} "
                    f"has not improved for {self.patience.stale} epochs"
                )
                self.journal.event("early_stop", ending, step=self.step)
                return ending
            self._run_epoch(self.step // self.plan.clock.steps_per_epoch)
        return "all epochs done"

    def _run_epoch(self, epoch: int) -> None:
        for batch, rows in self._batches(epoch):
            self._train_step(batch, rows)
            self.step += 1
            end = self.step % self.plan.clock.steps_per_epoch == 0
            due = self.step % self.plan.checkpoint_every == 0
            if end or due or self.journal.pulse_due(self.step):
                self._pulse()
            if end:
                self._finish_epoch(epoch)
            if due or self.step in (self.plan.clock.total_steps, self.best.step):
                self._save()

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, int]]:
        """This worker's part of each global batch left in the epoch, and the number of rows of the whole batch."""
        epochs = self.plan.epochs
        order = epochs.order(epoch)
        for i in range(self.step % epochs.steps, epochs.steps):
            with self.watch.time("input"):
                positions = epochs.positions(order, i, self.group.rank, self.group.size)
                batch = self.plan.splits.train.gather(positions).to(self.group.device)
                batch.inputs = self.plan.augment(batch.inputs, batch.ids, epoch)
            yield batch, epochs.size(i)

    def _train_step(self, batch: Batch, rows: int) -> None:
        with self.watch.time("compute"):
            # Dropout and the like draw from torch's own generator: seeded by the step, it has no state to restore.
            torch.manual_seed(key(self.plan.job.seed, "step", self.step, self.group.rank))
            for settings in self.optimizer.param_groups:
                settings["lr"] = self.plan.rate(self.step)
            loss = self._loss(batch, rows)
            # DDP averages gradients over the workers; each worker's loss is its part of a sum, so scale back.
            (loss * self.group.size).backward()
            norm = self._clip()
            before = [p.detach().clone() for p in self.parameters] if self.step % UPDATE_EVERY == 0 else None
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            update = None if before is None else self._update_ratio(before)
            if self.average:
                self.average.update(self.model, self.step)
        self.journal.step(loss.detach(), norm, update)

    def _loss(self, batch: Batch, rows: int) -> Tensor:
        """This worker's share of the mean loss over the `rows` of the global batch."""
        precision = self.plan.job.train.precision
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.autocast(self.group.device.type, dtype, enabled=precision in ("bf16", "fp16")):
            outputs = self.parallel(self.plan.preprocess(batch.inputs, self.plan.dtype))
        return self.plan.task.loss(outputs.to(self.plan.dtype), batch.targets) / rows

    def _clip(self) -> Tensor:
        """The norm of the whole gradient; scales it down to `train.clip` if it is longer."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.plan.job.train.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.plan.job.train.clip, norm)
        return norm

    def _update_ratio(self, before: list[Tensor]) -> Tensor:
        """|Δw| / |w| over all weights together."""
        change = torch._foreach_sub([p.detach() for p in self.parameters], before)
        return nn.utils.get_total_norm(change) / nn.utils.get_total_norm(before)

    # ── what happens between steps ──────────────────────────────────────────────────────────────────────────────────

    def _pulse(self) -> None:
        """Brings the workers together: all learn the same, and decide the same."""
        with self.watch.time("records"):
            pulse = self.journal.pulse(self.step, self.best)
        self.epoch_loss += pulse.loss_sum
        if pulse.broken is not None:
            self._diverged("loss", *pulse.broken)
        if pulse.stop is not None:
            if self.step % self.plan.clock.steps_per_epoch:  # at the end of an epoch its records come first
                self._save()
            raise Stopped(pulse.stop)

    def _finish_epoch(self, epoch: int) -> None:
        with self.watch.time("evaluation"):
            metrics = self._measure("validation", self.plan.splits.validation)
            if not math.isfinite(metrics["validation_loss"]):
                self._diverged("validation loss", self.step - 1, metrics["validation_loss"])
            if len(self.clean):
                metrics |= self._measure("clean_train", self.clean)
            if self.average:
                with self.average.applied_to(self.model):
                    metrics |= self._measure("averaged_validation", self.plan.splits.validation)
        metrics["train_loss"] = self.epoch_loss / self.plan.clock.steps_per_epoch
        self.epoch_loss = 0.0
        early = self.plan.job.train.early_stopping
        self.best = self.best.update(metrics[self.best.metric], self.step, epoch + 1)
        self.patience = self.patience.update(
            metrics[self.patience.metric], self.step, epoch + 1, early.min_change if early else 0.0
        )
        with self.watch.time("records"):
            self.journal.epoch(epoch + 1, self.step, metrics, self.best)

    def _measure(self, split: str, rows: Rows) -> dict[str, float]:
        return {f"{split}_{k}": v for k, v in evaluate(self.model, rows, self.plan, self.group).items()}

    def _diverged(self, what: str, step: int, value: float) -> NoReturn:
        raise Diverged(
            f"the {what} became {value} at step {step} (epoch {step // self.plan.clock.steps_per_epoch + 1}) with "
            f"learning rate {self.plan.rate(step):.3g}; try a lower optimizer.lr, a schedule.warmup or train.clip"
        )

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _save(self) -> None:
        if not self.group.first:
            return
        with self.watch.time("checkpoints"):
            self.journal.flush()
            save(
                self.folder,
                Checkpoint(
                    step=self.step,
                    model=self.model.state_dict(),
                    average=self.average.weights if self.average else None,
                    optimizer=self.optimizer.state_dict(),
                    state={
                        "epoch": self.step / self.plan.clock.steps_per_epoch,
                        "job_hash": job_hash(self.plan.job),
                        "best": self.best.to_dict(),
                        "patience": self.patience.to_dict(),
                        "epoch_loss": self.epoch_loss,
                        "covered": self.journal.covered(),
                    },
                ),
            )
            prune(self.folder, self.plan.job.train.checkpoint.keep, {self.best.step} if self.best.step else set())

    def _resume(self) -> None:
        """Goes on from the newest valid checkpoint, if there is one. The first worker chooses it for all."""
        chosen, notes = newest_valid(self.folder) if self.group.first else (None, [])
        name = self.group.from_first(name_of(chosen.step) if chosen else None)
        checkpoint = chosen if self.group.first or name is None else load(self.folder, name)
        if checkpoint:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer or {})
            if self.average and checkpoint.average:
                self.average.load(checkpoint.average)
            self.step, self.epoch_loss = checkpoint.step, checkpoint.state["epoch_loss"]
            self.best, self.patience = Best(**checkpoint.state["best"]), Best(**checkpoint.state["patience"])
        self.journal.begin(checkpoint, notes, self.best)

    def keep_best_model(self) -> None:
        """Scores the best weights on the test split, if there is one, and writes them as the run's model."""
        assert self.best.step is not None
        self.group.meet()
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
            write_model(self.folder, weights, {**self.plan.describe_model(), "from": about, "metrics": metrics})
