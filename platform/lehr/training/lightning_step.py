"""A training step of a `LightningModule`: its own loss and, where it configures one, its own optimizer."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn

from lehr.data.dataset import Batch
from lehr.data.randomness import key
from lehr.models.lightning import Lightning, Trainer, TrainingStep, optimizer_of
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.train_step import StepResult, TrainStep


def train_step_of(plan: Plan, model: nn.Module, group: Group) -> TrainStep:
    """What takes the training steps of a plan's model."""
    return LightningStep(plan, model, group, plan.lightning) if plan.lightning else TrainStep(plan, model, group)


class LightningStep(TrainStep):
    """Takes training steps by a LightningModule's own `training_step`, whose loss is a mean over rows."""

    def __init__(self, plan: Plan, model: nn.Module, group: Group, lightning: Lightning) -> None:
        """Raises JobError where a worker would have no row of some part of a batch, or the parts do not add up."""
        parts = plan.job.train.gradient_accumulation
        several = f"{group.size} workers" if group.size > 1 else f"{parts} parts of each batch"
        if group.size * parts > 1 and not lightning.mean:
            what = f"{plan.job.model.name} has a loss that is no mean over rows, so {several} would change it"
            raise plan.job.error("model", f"{what}; allowed: workers: 1 and train.gradient_accumulation: 1")
        least = min(plan.sampler.size(i) for i in {0, plan.sampler.steps - 1})
        if least // min(parts, least) < group.size:
            what = f"the last batch of an epoch has {least} rows, too few for training_step on {several}"
            raise plan.job.error("train.batch_size", f"{what}; allowed: one that leaves more rows, or fewer workers")
        self._lightning, self._step = lightning, 0
        super().__init__(plan, model, group)

    def __call__(self, batch: Batch, rows: int, step: int) -> StepResult:
        self._step = trainer_of(self._model).step = step
        drawn = key(self.plan.job.seed, "step", step, self._group.rank)  # torch itself is seeded as for any network
        random.seed(drawn)
        np.random.seed(drawn % 2**32)
        return super().__call__(batch, rows, step)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return optimizer_of(self._model)[0] if self._lightning.rates else super()._make_optimizer()

    def _set_learning_rate(self, rate: float) -> None:
        if not self._lightning.rates:
            super()._set_learning_rate(rate)
            return
        for group, settings in zip(self.optimizer.param_groups, self._lightning.rates.at(self._step), strict=True):
            group.update(settings)

    def _called(self) -> nn.Module:
        return TrainingStep(self._model)

    def _loss(self, batch: Batch) -> Tensor:
        index = self._step % self.plan.length.steps_per_epoch
        with self._autocast():
            loss: Tensor = self._parallel(self.plan.inputs(batch.inputs), batch.targets, index)
        return loss * len(batch.targets)


def trainer_of(model: nn.Module) -> Trainer:
    """What stands in for Lightning's Trainer."""
    trainer: Trainer = model._trainer  # type: ignore[assignment]
    return trainer
