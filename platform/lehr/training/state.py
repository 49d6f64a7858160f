"""How far a training is: the loop's own part of a checkpoint's `state.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lehr.job import Training
from lehr.job.training import tie_breaker
from lehr.runs import Checkpoint
from lehr.training.stopping import Best

CURVES = ("train_loss", "validation_accuracy")
"""What the history keeps of each epoch: the metrics that a diagnosis during training looks at."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on beside weights, optimizer and job. The same on every worker.

    Attributes:
        best: the best value of the metric that chooses the run's model.
        patience: the best value of the metric that early stopping watches.
        step: optimizer steps taken.
        epoch_loss: sum of the losses of the current epoch, up to the last synchronisation point.
        first_loss: loss of the first step; None before it is known.
        history: what `CURVES` names, of each epoch so far.
    """

    best: Best
    patience: Best
    step: int = 0
    epoch_loss: float = 0.0
    first_loss: float | None = None
    history: tuple[Mapping[str, float], ...] = ()

    @classmethod
    def start(cls, job: Training) -> TrainingState:
        """The state before the first step."""
        early, metric = job.train.early_stopping, job.train.metric
        best, watched = (
            Best(name, lower=job.lower_is_better(name)) for name in (metric, (early and early.metric) or metric)
        )
        return cls(best, watched)

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> TrainingState:
        """The state that a checkpoint holds. Older ones have no `first_loss` and no `best_loss`; the record holds the
        `history`."""
        saved = checkpoint.state
        return cls(
            best=Best.read(saved["best"], saved.get("best_loss")),
            patience=Best.read(saved["patience"]),
            step=checkpoint.step,
            epoch_loss=saved["epoch_loss"],
            first_loss=saved.get("first_loss"),
        )

    def to_json(self) -> dict[str, object]:
        """For state.json, to which the checkpoint itself adds the step."""
        return {
            "best": self.best.to_json(),
            "best_loss": self.best.loss,
            "patience": self.patience.to_json(),
            "epoch_loss": self.epoch_loss,
            "first_loss": self.first_loss,
        }

    def after_step(self) -> TrainingState:
        """The state after one more step, whose loss is not known yet."""
        return replace(self, step=self.step + 1)

    def with_losses(self, losses: Sequence[float]) -> TrainingState:
        """The state with the losses of the steps since the last synchronisation point."""
        total = self.epoch_loss
        for loss in losses:  # one by one: when the workers synchronised must not show in the last digit
            total += loss
        return replace(self, epoch_loss=total, first_loss=losses[0] if self.first_loss is None else self.first_loss)

    def after_epoch(self, epoch: int, metrics: Mapping[str, float], min_change: float) -> TrainingState:
        """The state at the end of an epoch (counted from 1) with these metrics."""
        best, watched = (metrics.get(each.metric, math.nan) for each in (self.best, self.patience))
        return replace(
            self,
            best=self.best.update(best, self.step, epoch, loss=metrics.get(tie_breaker(self.best.metric))),
            patience=self.patience.update(watched, self.step, epoch, min_change),
            epoch_loss=0.0,
            history=(*self.history, {name: metrics[name] for name in CURVES if name in metrics}),
        )
