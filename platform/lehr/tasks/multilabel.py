"""Several classes a row, or none: each class is told apart from all others by itself.

Its score is the mean average precision: how far ahead of the other rows those of a class are when all rows are ordered
by its probability. That needs all rows at once, so the outputs of all workers are brought together. F1 needs a
threshold for each class: 0.5 while a network trains; then the one that gave the best F1 on the validation rows, which
is kept with the model. F1 on these same rows with these thresholds would flatter it, and is not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.base import Learned, Task, of_each
from lehr.tasks.classification import lists
from lehr.tasks.forms import UNREADABLE, LabelKind
from lehr.tasks.losses import Activation, Loss

HALF = 0.5
MOST_GUESSED = 4096
"""Training rows on which the loss of a guess is measured."""


# ── the losses: functions (outputs [rows, classes], targets [rows, classes] of 0 and 1, **options) → [rows] ─────────


def bce(outputs: Tensor, targets: Tensor, pos_weight: float = 1.0) -> Tensor:
    """−1/C Σ_c [w⁺ t_c log σ(z_c) + (1 − t_c) log(1 − σ(z_c))].

    Args:
        pos_weight: w⁺, the weight of the classes that a row has against those that it has not.
    """
    if pos_weight <= 0:
        raise ValueError(f"pos_weight: {pos_weight} is out of range; allowed: above 0")
    weight = None if pos_weight == 1 else outputs.new_full((), pos_weight)
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none", pos_weight=weight).mean(dim=1)


def focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """−1/C Σ_c (1 − p_c)^γ log p_c, with p_c the probability of what is true of class c: what is told well counts less.

    Lin et al., "Focal loss for dense object detection", 2017, without its α. With γ = 0 it is bce.
    """
    if gamma < 0:
        raise ValueError(f"gamma: {gamma} is out of range; allowed: 0 or more")
    cross = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    missed = -torch.expm1(-cross)  # 1 − p, also where p is close to 1
    return (missed.clamp(min=torch.finfo(outputs.dtype).eps) ** gamma * cross).mean(dim=1)


def asymmetric(
    outputs: Tensor, targets: Tensor, gamma_positive: float = 1.0, gamma_negative: float = 4.0, margin: float = 0.05
) -> Tensor:
    """−1/C Σ_c [t_c (1 − p_c)^γ⁺ log p_c + (1 − t_c) q_c^γ⁻ log(1 − q_c)], with q_c = max(p_c − m, 0): the many classes
    that a row has not, and that are told so, count for little.

    Ridnik et al., "Asymmetric loss for multi-label classification", 2021.

    Args:
        gamma_positive, gamma_negative: γ⁺ and γ⁻, 0 or more.
        margin: m, the probability up to which a class that a row has not costs nothing, from 0 to below 1.
    """
    for name, value in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
        if value < 0:
            raise ValueError(f"{name}: {value} is out of range; allowed: 0 or more")
    if not 0 <= margin < 1:
        raise ValueError(f"margin: {margin} is out of range; allowed: from 0 to below 1")
    tiny = torch.finfo(outputs.dtype).eps
    p = outputs.sigmoid()
    q = (p - margin).clamp(min=0)
    there = (1 - p).clamp(min=tiny) ** gamma_positive * -F.logsigmoid(outputs)
    not_there = q.clamp(min=tiny) ** gamma_negative * -torch.log1p(-q.clamp(max=1 - tiny))
    return (targets * there + (1 - targets) * not_there).mean(dim=1)


LOSSES: dict[str, Callable[..., Tensor]] = {"bce": bce, "focal": focal, "asymmetric": asymmetric}


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────────


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Σ_n (R_n − R_{n−1}) P_n of each class, float64 [classes]; NaN for a class of no row.

    P_n and R_n are precision and recall of the rows that score at least as high as the n-th distinct score: rows of one
    score come together, in whatever order they stand.

    Args:
        scores: [rows, classes]. targets: [rows, classes], 1 where a row has the class.
    """
    found = torch.full((scores.shape[1],), math.nan, dtype=torch.float64)
    for number in range(scores.shape[1]):
        order = scores[:, number].argsort(descending=True, stable=True)
        ranked, right = scores[order, number], targets[order, number].double().cumsum(0)
        if not len(ranked) or not right[-1]:
            continue
        last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])  # of each distinct score
        count = torch.arange(1, len(ranked) + 1, dtype=torch.float64)[last]
        recall = right[last] / right[-1]
        found[number] = (recall.diff(prepend=recall.new_zeros(1)) * right[last] / count).sum()
    return found


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 [classes]: of each class the threshold with the highest F1; 0.5 for a class of no row, or of all rows.

    It lies midway between two neighbouring scores. Of several that are equally good it is the one nearest to 0.5.
    """
    found = np.full(scores.shape[1], HALF)
    for number in range(scores.shape[1]):
        order = np.argsort(-scores[:, number], kind="stable")
        ranked, right = scores[order, number].astype(np.float64), np.cumsum(targets[order, number] > 0)
        if not len(ranked) or right[-1] in (0, len(ranked)):
            continue
        last = np.append(ranked[1:] != ranked[:-1], True)
        f1 = 2 * right[last] / (np.arange(1, len(ranked) + 1)[last] + right[-1])
        below = np.append(ranked[last][1:], 0.0)
        middle = (ranked[last] + below) / 2
        good = np.flatnonzero(f1 >= f1.max() - 1e-12)
        found[number] = middle[good[np.argmin(np.abs(middle[good] - HALF))]]
    return found


# ── the task ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Multilabel(Task[Tensor]):
    """Labels int8 [rows, classes]: 1 where a row has the class, else 0.

    Attributes:
        names: of the classes.
        thresholds: the probability of each class from which on an image counts as having it.
        often: the share of training rows that have each class.
        guess: the plain loss of outputs that are all zero, over the training rows; NaN where it is not known.
        trained: the loss that is minimised. plain: what is measured.
    """

    labels: ClassVar[LabelKind] = "classes"
    losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES
    usual_activation: ClassVar[Activation] = "sigmoid"
    score: ClassVar[str] = "map"
    metric: ClassVar[str] = "map"
    ranks: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    shows: ClassVar[bool] = True

    names: tuple[str, ...]
    thresholds: tuple[float, ...]
    often: tuple[float, ...] = ()
    guess: float = math.nan
    trained: Loss = field(default_factory=Loss)
    plain: Loss = field(default_factory=Loss)

    @classmethod
    def fit(cls, learned: Learned) -> Self:  # type: ignore[override]  # it has no options
        known = learned.targets[learned.targets[:, 0] != UNREADABLE]
        often = (known > 0).double().mean(dim=0)
        if not bool(((often > 0) & (often < 1)).any()):
            what = "all rows to train on have the same classes, so there is nothing to tell apart"
            raise ValueError(f"{what}; allowed: rows that differ")
        made = cls(
            learned.names, (HALF,) * len(learned.names), tuple(often.tolist()), math.nan, learned.trained, learned.plain
        )
        some = known[:MOST_GUESSED]
        made.guess = float(made._summed(learned.plain, torch.zeros(some.shape), some)) / max(1, len(some))
        return made

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        thresholds = tuple(float(each) for each in state["thresholds"])
        if len(thresholds) != len(names):
            raise ValueError(f"a threshold for each of its {len(names)} classes is missing")
        plain = replace(Loss(), activation=activation)
        return cls(tuple(names), thresholds, trained=plain, plain=plain)

    def state(self) -> dict[str, Any]:
        return {"thresholds": list(self.thresholds)}

    def choices(self, values: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        return {"thresholds": best_thresholds(values, labels).tolist()}

    def with_choices(self, chosen: Mapping[str, Any]) -> Self:
        return replace(self, thresholds=tuple(chosen["thresholds"]))

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "map", "f1", *(f"f1_{name}" for name in self.names))

    @property
    def activation(self) -> Activation:
        return self.plain.activation

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._summed(self.trained, outputs, targets)

    def sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        known = targets[:, 0] != UNREADABLE
        limits = torch.tensor(self.thresholds, dtype=torch.float64, device=outputs.device)
        given, there = self.values(outputs[known]).double() >= limits, targets[known] > 0
        return {
            "loss": self._summed(self.plain, outputs, targets),
            "right": (given & there).sum(dim=0),
            "given": given.sum(dim=0),
            "there": there.sum(dim=0),
        }

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        counts = (np.asarray(sums[name], np.float64) for name in ("right", "given", "there"))
        return {"loss": sums["loss"] / rows, **self._f1(*counts)}

    def whole(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {"map": float(average_precision(self.values(outputs), targets).nanmean())}

    def chance_loss(self, dtype: torch.dtype) -> float:
        return self.guess

    @property
    def chance(self) -> float:
        known = [share for share in self.often if share > 0]
        return sum(known) / len(known) if known else math.nan

    def values(self, outputs: Tensor) -> Tensor:
        return outputs if self.activation == "none" else outputs.sigmoid()

    @classmethod
    def example(cls, outputs: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        made = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(0)).to(dtype)
        return made, ((torch.arange(rows)[:, None] + torch.arange(outputs)) % 3 == 0).to(torch.int8)

    def measure(self, values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        given, there = values >= np.array(self.thresholds), labels > 0
        precision = average_precision(torch.from_numpy(np.array(values)), torch.from_numpy(np.array(labels)))
        counts = ((given & there).sum(axis=0), given.sum(axis=0), there.sum(axis=0))
        f1 = self._f1(*(each.astype(np.float64) for each in counts))
        return {"map": float(precision.nanmean()), **f1, **of_each("ap", precision.numpy(), self.names)}

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        given = [None if odd else self._given(row).tolist() for row, odd in zip(values, unreadable, strict=True)]
        named = [None if row is None else [self.names[each] for each in row] for row in given]
        return {
            "prediction": pa.array(given, pa.list_(pa.int64())),
            "classes": pa.array(named, pa.list_(pa.string())),
            "probabilities": lists(values, unreadable),
        }

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        given = self._given(values)
        best = given[np.argsort(-values[given], kind="stable")]
        return [(self.names[each], f"{values[each]:.1%}") for each in best] or [("none of the classes", "")]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        return {
            "classes": [self.names[each] for each in self._given(values)],
            "probabilities": dict(zip(self.names, map(float, values), strict=True)),
        }

    def errors(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        given, there = values >= np.array(self.thresholds), labels > 0
        sure = np.where(there, 1 - values, values).astype(np.float64)
        return np.where(given != there, sure, 0.0).sum(axis=1)

    def distances(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The mean squared difference of probability and truth over the classes: Brier, 1950."""
        return ((np.asarray(values, np.float64) - (labels > 0)) ** 2).mean(axis=1)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        given, there = set(self._given(values).tolist()), set(np.flatnonzero(label > 0).tolist())

        def named(which: set[int]) -> str:
            return ", ".join(f"{self.names[each]} {values[each]:.0%}" for each in sorted(which))

        found = ", ".join(self.names[each] for each in sorted(there)) or "none of the classes"
        wrong = {"missed": there - given, "wrongly told": given - there}
        return [found, *(f"{what}: {named(which)}" for what, which in wrong.items() if which)]

    def table(self, values: np.ndarray, labels: np.ndarray) -> tuple[list[str], list[list[str]]]:
        measured, given, there = self.measure(values, labels), values >= np.array(self.thresholds), labels > 0
        rows = []
        for k, name in enumerate(self.names):
            right, told, rows_of = (int(each[:, k].sum()) for each in (given & there, given, there))
            shares = (right / told if told else math.nan, right / rows_of if rows_of else math.nan)
            figures = (measured[f"ap_{name}"], measured[f"f1_{name}"], *shares)
            shown = ["" if math.isnan(each) else f"{each:.1%}" for each in figures]
            rows.append([name, f"{rows_of:,}", *shown, f"{self.thresholds[k]:.2f}"])
        return ["class", "rows", "average precision", "F1", "precision", "recall", "threshold"], rows

    def _given(self, values: np.ndarray) -> np.ndarray:
        """The classes, by number, that an image of these probabilities counts as having."""
        return np.flatnonzero(values >= np.array(self.thresholds))

    def _summed(self, loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
        return loss.summed(outputs, targets.clamp(min=0).to(outputs.dtype), targets[:, 0] != UNREADABLE)

    def _f1(self, right: np.ndarray, given: np.ndarray, there: np.ndarray) -> dict[str, float]:
        """2 P R / (P + R) of each class, and their mean over the classes that some row has or is told to have."""
        with np.errstate(invalid="ignore"):
            each = np.where(given + there > 0, 2 * right / (given + there), math.nan)
        mean = float(np.nanmean(each)) if np.isfinite(each).any() else math.nan
        return {"f1": mean, **of_each("f1", each, self.names)}


TASK = Multilabel
