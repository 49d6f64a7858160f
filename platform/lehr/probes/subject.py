"""What probes measure: a job, its rows, its network; and the two ways to measure, a look and a short training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.dataset import UNREADABLE, Batch, DataSubset, Splits
from lehr.data.randomness import key, permutation
from lehr.job import TrainJob, from_dict, to_dict
from lehr.probes.budget import Budget
from lehr.recipe.overfit import without_dropout
from lehr.runs import DataSurvey
from lehr.training.group import Group
from lehr.training.lightning_step import train_step_of
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan

MOST_LOOKED_AT = 400  # rows of a look: their accuracy is known to 5 points
HELD_OUT = 0.2  # share of the training rows that short trainings do not see, no more than a look takes
FEW = 128  # rows of a batch of a look
STEADY: dict[str, Any] = {
    "schedule": "constant",
    "optimizer.scale_lr": None,
    "train.early_stopping": None,
    "train.averaging": None,
    "train.metric": "validation_accuracy",
    "train.checkpoint.snapshots": False,
    "callbacks": [],
}
"""A constant rate, so that a few steps are like the first ones of a longer training."""


@dataclass(frozen=True)
class Look:
    """What a network says of some rows.

    Attributes:
        right: bool [rows], whether the most probable class is the label.
        failed: why there is nothing to see, such as a loss that became infinite; empty if nothing failed.
    """

    right: Tensor
    failed: str = ""

    @property
    def rows(self) -> int:
        return len(self.right)

    @property
    def share(self) -> float:
        return float(self.right.double().mean()) if len(self.right) else 0.0


@dataclass
class Subject:
    """A run as probes see it.

    Attributes:
        job: as it was trained. splits: its rows.
        network: with the weights that the run kept; None where it kept none.
        fitted_at: the highest accuracy on training rows that the run recorded; the kept model may be of another epoch.
        kept_early: whether the network is of the first half of the run, where it was not yet what it became.
        survey: what the run recorded of its rows; an empty one where nothing was.
        steps: updates of a short training, decided once from the budget, so that all of them compare.
    """

    job: TrainJob
    splits: Splits
    budget: Budget
    network: nn.Module | None = None
    fitted_at: float = 0.0
    kept_early: bool = False
    survey: DataSurvey = field(default_factory=DataSurvey)
    group: Group = field(default_factory=Group)
    steps: int = 0
    _looks: dict[str, Look] = field(default_factory=dict)

    # ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def plan(self) -> Plan:
        return Plan.make(self.job, self.splits)

    @cached_property
    def _order(self) -> Tensor:
        return self.splits.train.order(key(self.job.seed, "probe"))

    @cached_property
    def held_out(self) -> DataSubset:
        """Training rows that no short training sees; the trained network has seen them."""
        return self.splits.train.subset(self._order[: self._held])

    @property
    def _held(self) -> int:
        return min(MOST_LOOKED_AT, round(HELD_OUT * len(self.splits.train)))

    @cached_property
    def fitted(self) -> DataSubset:
        """Training rows that both the run and the short trainings see, no more than a look takes."""
        return self.splits.train.subset(self._order[self._held : self._held + MOST_LOOKED_AT])

    @cached_property
    def validation(self) -> DataSubset:
        rows = self.splits.validation
        return rows.subset(rows.some_rows(key(self.job.seed, "probe"), MOST_LOOKED_AT))

    @cached_property
    def short_splits(self) -> Splits:
        """The rows of short trainings."""
        return dataclasses.replace(self.splits, train=self.splits.train.subset(self._order[self._held :]), test=None)

    @property
    def chance(self) -> float:
        """The share that always saying the most frequent class of the validation rows gets right."""
        counts = torch.bincount(self.splits.validation.labels.cpu(), minlength=self.plan.task.outputs)
        return float(counts.max() / counts.sum())

    @property
    def chance_in_training(self) -> float:
        counts = torch.bincount(self.splits.train.labels.cpu(), minlength=self.plan.task.outputs)
        return float(counts.max() / counts.sum())

    def epochs(self, rows: int) -> float:
        return rows / max(1, len(self.splits.train))

    # ── looks ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def reached(self) -> Look | None:
        """The trained network on training rows as they are, with statistics of the batch; None without a network."""
        return self.look_once("reached", self.fitted, batch_statistics=True)

    def look_once(self, name: str, rows: DataSubset, **how: Any) -> Look | None:
        """A look of the trained network, which is taken once; None without a network, or without room for it."""
        if name not in self._looks:
            if self.network is None or not self.budget.take(len(rows)):
                return None
            self._looks[name] = look(self.network, self.plan, rows, self.group, **how)
        return self._looks[name]

    # ── short trainings ─────────────────────────────────────────────────────────────────────────────────────────────

    def cost(self, looks: int = 1) -> int:
        """Rows of a short training with this many looks at the end, at most."""
        batch = min(self.job.train.batch_size, len(self.short_splits.train))
        return self.steps * batch + looks * min(MOST_LOOKED_AT, len(self.splits.train))

    def plan_of(self, changes: Mapping[str, Any]) -> Plan:
        """The plan of a short training. Raises JobError for changes that the job cannot have."""
        epochs = -(-self.steps // max(1, -(-len(self.short_splits.train) // self.job.train.batch_size)))
        changed = from_dict(to_dict(self.job), {**STEADY, "train.epochs": max(1, epochs), **changes})
        assert isinstance(changed, TrainJob)
        return Plan.make(changed, self.short_splits)

    def train(self, plan: Plan, *, dropout: bool = True, labels: Tensor | None = None) -> nn.Module | None:
        """A network after a short training from the initial weights; None where the loss became infinite.

        Args:
            plan: as `plan_of` makes it.
            labels: by row id, instead of the rows' own.
        """
        model = prepare_model(plan, self.group)
        if not dropout:
            without_dropout(model)
        rate = plan.job.optimizer.rate
        step_of = train_step_of(dataclasses.replace(plan, learning_rate=lambda step: rate), model, self.group)
        model.train()
        for step, (batch, rows) in zip(range(self.steps), _endless(plan, self.group), strict=False):
            if labels is not None:
                batch.targets = labels[batch.ids]
            loss = step_of(batch, rows, step).loss
        return model if math.isfinite(float(loss)) else None

    def short(self, name: str, changes: Mapping[str, Any], *, dropout: bool = True) -> Look | None:
        """A look at training rows after a short training, which is made once under its name; None: no room for it."""
        if name not in self._looks:
            if not self.budget.take(self.cost()):
                return None
            plan = self.plan_of(changes)
            self._looks[name] = self.look_after(plan, self.train(plan, dropout=dropout), self.fitted)
        return self._looks[name]

    @cached_property
    def shuffled_labels(self) -> Tensor:
        """int64 [highest id + 1]: for the id of each training row, the label of another one, drawn by the seed."""
        rows = self.splits.train
        by_id = torch.zeros(int(rows.ids.max()) + 1, dtype=torch.int64)
        by_id[rows.ids.cpu()] = rows.labels.cpu()[permutation(key(self.job.seed, "probe", 1), len(rows))]
        return by_id.to(self.group.device)

    def look_after(self, plan: Plan, model: nn.Module | None, rows: DataSubset, labels: Tensor | None = None) -> Look:
        """A look at rows after a short training; none is right where the loss became infinite."""
        if model is None:
            return Look(torch.zeros(len(rows), dtype=torch.bool), "the loss became infinite")
        return look(model, plan, rows, self.group, batch_statistics=True, labels=labels)

    def known(self, name: str) -> Look | None:
        """A look that was taken already."""
        return self._looks.get(name)

    def base(self) -> Look | None:
        """A short training of the job as it is, at its own learning rate."""
        return self.short("base", {})


@torch.no_grad()
def look(
    model: nn.Module,
    plan: Plan,
    rows: DataSubset,
    group: Group,
    *,
    batch_statistics: bool = False,
    dropout: bool = False,
    augment: Augment | None = None,
    labels: Tensor | None = None,
) -> Look:
    """Which rows the network gets right. It leaves the network, and the statistics of its batch norms, as they were.

    Args:
        batch_statistics: whether batch norm uses those of each batch, as in training. The last rows are left out where
            they are too few for a batch of their own.
        dropout: whether it drops what it drops in training.
        augment: what is done with the rows first; it must not mix them.
        labels: by row id, instead of the rows' own.
    """
    right: list[Tensor] = []
    parts = list(torch.arange(len(rows)).split(FEW))
    if batch_statistics and len(parts) > 1 and len(parts[-1]) < FEW // 4:
        parts = [*parts[:-2], torch.cat(parts[-2:])]
    with _as_in_training(model, batch_statistics, dropout):
        for batch in rows.batches(parts):
            batch = batch.to(group.device)
            if augment:
                batch = augment(batch, 0, None, len(rows.classes))
            outputs: Tensor = model(*plan.arguments(batch))
            known, targets = batch.targets != UNREADABLE, batch.targets if labels is None else labels[batch.ids]
            right.append((outputs.argmax(1) == targets)[known].cpu())
    return Look(torch.cat(right) if right else torch.zeros(0, dtype=torch.bool))


@contextmanager
def _as_in_training(model: nn.Module, batch_statistics: bool, dropout: bool) -> Iterator[None]:
    """Puts some layers into training mode, and everything back afterwards."""
    was = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for module in model.modules():
        norm, drops = isinstance(module, _BatchNorm), is_dropout(module)
        module.training = (norm and batch_statistics) or (drops and dropout)
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def is_dropout(module: nn.Module) -> bool:
    """Whether a layer drops units or whole layers at random during training."""
    if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
        return float(module.p) > 0  # type: ignore[arg-type]
    return type(module).__name__ == "DropPath" and bool(getattr(module, "drop_prob", 0.0))


def _endless(plan: Plan, group: Group) -> Iterator[tuple[Batch, int]]:
    """The batches of one epoch after the other, each with its rows."""
    epoch = 0
    while True:
        found = batches(plan.splits.train, plan.sampler, plan.augment, epoch, device=group.device)
        for within, batch in enumerate(found):
            yield batch, plan.sampler.size(within)
        epoch += 1
