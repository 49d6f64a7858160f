"""Regression: one or more numbers a row, learned in units of their spread over the training rows, told in their own.

What the network gives is scaled: 0 is the mean of a number over the training rows, 1 one standard deviation above it.
So the loss of a network that gives zeros is that of always guessing the mean, whatever the unit. A loss of a job's own
gets outputs and targets in this scale; metrics get both in the numbers' own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.base import Learned, Task, of_each
from lehr.tasks.classification import lists
from lehr.tasks.forms import LabelKind
from lehr.tasks.losses import Activation, Loss

SHOWN = 6
"""Numbers of one image in a caption."""


# ── the losses: functions (outputs [rows, numbers], targets [rows, numbers], **options) → the loss of each row ──────


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """1/K Σ_k (y_k − t_k)²: the mean is what it asks for; one wild row counts as much as many others."""
    return F.mse_loss(outputs, targets, reduction="none").mean(dim=1)


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """1/K Σ_k |y_k − t_k|: the median is what it asks for."""
    return F.l1_loss(outputs, targets, reduction="none").mean(dim=1)


def huber(outputs: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """1/K Σ_k h(y_k − t_k), with h(e) = e²/2 up to |e| = δ and δ (|e| − δ/2) beyond: wild rows count no more than in
    mae.

    Huber, "Robust estimation of a location parameter", 1964.

    Args:
        delta: δ, in standard deviations of the number.
    """
    if delta <= 0:
        raise ValueError(f"delta: {delta} is out of range; allowed: above 0")
    return F.huber_loss(outputs, targets, reduction="none", delta=delta).mean(dim=1)


LOSSES: dict[str, Callable[..., Tensor]] = {"huber": huber, "mse": mse, "mae": mae}


# ── the task ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Regression(Task[Tensor]):
    """Numbers [rows, names]; NaN in the first of them: the image could not be read.

    Attributes:
        names: of the numbers, in the order of the outputs.
        mean, deviation: of each number over the training rows, in its own unit.
        guess: the plain loss of always giving the mean, over the training rows; NaN where it is not known.
        trained: the loss that is minimised. plain: what is measured.
    """

    labels: ClassVar[LabelKind] = "numbers"
    losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES
    usual_activation: ClassVar[Activation] = "none"
    score: ClassVar[str] = "r2"
    metric: ClassVar[str] = "mae"
    shows: ClassVar[bool] = True

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    guess: float = math.nan
    trained: Loss = field(default_factory=Loss)
    plain: Loss = field(default_factory=Loss)
    _scales: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, learned: Learned) -> Self:  # type: ignore[override]  # it has no options
        known = learned.targets[~learned.targets[:, 0].isnan()]
        mean, deviation = known.mean(dim=0), known.std(dim=0, correction=0)
        same = [name for name, spread in zip(learned.names, deviation.tolist(), strict=True) if not spread > 0]
        if same:
            what = f"{same[0]} is the same number in all {len(known):,} rows to train on, so there is nothing to learn"
            raise ValueError(f"{what}; allowed: numbers that differ; data.labels names the columns")
        made = cls(
            learned.names,
            tuple(mean.tolist()),
            tuple(deviation.tolist()),
            trained=learned.trained,
            plain=learned.plain,
        )
        total = float(made._summed(learned.plain, torch.zeros_like(known), known))
        made.guess = total / max(1, len(known))
        return made

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        scale = {name: [float(each) for each in state[name]] for name in ("mean", "deviation")}
        if not all(len(each) == len(names) for each in scale.values()):
            raise ValueError(f"a scale for each of its {len(names)} numbers is missing")
        return cls(tuple(names), tuple(scale["mean"]), tuple(scale["deviation"]))

    def state(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "deviation": list(self.deviation)}

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        several = len(self.names) > 1
        each = [f"{metric}_{name}" for metric in ("mae", "r2") for name in self.names] if several else []
        return ("loss", "mae", "rmse", "r2", *each)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._summed(self.trained, outputs, targets)

    def sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        known = ~targets[:, 0].isnan()
        given, wanted = outputs[known].double(), self._scaled(targets[known])
        return {
            "loss": self._summed(self.plain, outputs, targets),
            "wrong": (given - wanted).abs().sum(dim=0),
            "squared": (given - wanted).square().sum(dim=0),
            "targets": wanted.sum(dim=0),
            "targets_squared": wanted.square().sum(dim=0),
        }

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        names = ("wrong", "squared", "targets", "targets_squared")
        wrong, squared, total, squares = (np.asarray(sums[name], np.float64) for name in names)
        found = self._metrics(wrong / rows, squared / rows, squares / rows - (total / rows) ** 2)
        return {"loss": sums["loss"] / rows, **found}

    def chance_loss(self, dtype: torch.dtype) -> float:
        return self.guess

    @property
    def chance(self) -> float:
        return 0.0

    def values(self, outputs: Tensor) -> Tensor:
        mean, deviation = self._scale(outputs.device)
        return (outputs * deviation + mean).to(outputs.dtype)

    def for_metrics(self, outputs: Tensor) -> Tensor:
        return self.values(outputs)

    @classmethod
    def example(cls, outputs: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        made = torch.randn(2, rows, outputs, generator=torch.Generator().manual_seed(0))
        return made[0].to(dtype), made[1].double()

    def measure(self, values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        wrong = (np.asarray(values, np.float64) - labels) / np.array(self.deviation)
        spread = (np.asarray(labels, np.float64) / np.array(self.deviation)).var(axis=0)
        return self._metrics(np.abs(wrong).mean(axis=0), (wrong**2).mean(axis=0), spread)

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        return {"prediction": lists(values, unreadable)}

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        return [(name, f"{value:.4g}") for name, value in zip(self.names, values.tolist(), strict=True)]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        return {"values": dict(zip(self.names, map(float, values), strict=True))}

    def errors(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (np.abs(np.asarray(values, np.float64) - labels) / np.array(self.deviation)).mean(axis=1)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        wrong = np.abs(values - label) / np.array(self.deviation)
        worst = np.argsort(-wrong, kind="stable")[:SHOWN]
        return [f"{self.names[each]} {label[each]:.4g}, told {values[each]:.4g}" for each in worst.tolist()]

    def table(self, values: np.ndarray, labels: np.ndarray) -> tuple[list[str], list[list[str]]]:
        found = [(name, values[:, [k]], labels[:, [k]]) for k, name in enumerate(self.names)]
        rows = []
        for k, (name, given, wanted) in enumerate(found):
            alone = type(self)((name,), (self.mean[k],), (self.deviation[k],))
            measured = alone.measure(given, wanted)
            guess = float(np.abs(wanted - self.mean[k]).mean())
            figures = (measured["mae"], measured["rmse"], measured["r2"], guess)
            rows.append([name, f"{len(wanted):,}", *(f"{each:.4g}" for each in figures), f"{wanted.mean():.4g}"])
        return ["number", "rows", "MAE", "RMSE", "R²", "MAE of the training mean", "mean"], rows

    # ── its scale ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _summed(self, loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
        known = ~targets[:, 0].isnan()
        return loss.summed(outputs, self._scaled(targets).nan_to_num().to(outputs.dtype), known)

    def _scaled(self, targets: Tensor) -> Tensor:
        mean, deviation = self._scale(targets.device)
        return (targets.double() - mean) / deviation

    def _scale(self, device: torch.device) -> Tensor:
        """float64 [2, numbers] on a device. Kept, since a copy in each step would make a GPU wait for the CPU."""
        if device not in self._scales:
            with torch.inference_mode(False):
                made = torch.tensor([self.mean, self.deviation], dtype=torch.float64, device=device)
            if made.is_meta or torch.compiler.is_exporting():
                return made
            self._scales[device] = made
        return self._scales[device]

    def _metrics(self, wrong: np.ndarray, squared: np.ndarray, spread: np.ndarray) -> dict[str, float]:
        """From the mean error, squared error and variance of each number, in standard deviations."""
        unit = np.array(self.deviation)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = np.where(spread > 1e-12, 1 - squared / spread, math.nan)  # nothing to explain in equal rows
        each = {**of_each("mae", wrong * unit, self.names), **of_each("r2", explained, self.names)}
        return {
            "mae": float((wrong * unit).mean()),
            "rmse": math.sqrt(float((squared * unit**2).mean())),
            "r2": float(np.mean(explained)),
            **(each if len(self.names) > 1 else {}),
        }


TASK = Regression
