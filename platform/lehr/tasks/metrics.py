"""Metrics of a whole split by name, each a pure function of all its outputs and targets.

A metric is a function (outputs, targets, **options): `outputs` [rows, classes] are the network's own, `targets` [rows]
int64 are classes, in the order of the rows. It returns a number, a vector [classes], or a mapping of names to numbers;
NaN where nothing can be measured. To add one: its function here, and its line in `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Average = Literal["macro", "micro", "weighted", "none"]


def top_k_accuracy(outputs: Tensor, targets: Tensor, k: int = 5) -> Tensor:
    """The share of rows whose class is among the k highest outputs."""
    if not 1 <= k <= outputs.shape[1]:
        raise ValueError(f"k: {k} is out of range; allowed: 1 to the number of classes, {outputs.shape[1]}")
    return (outputs.topk(k, dim=1).indices == targets[:, None]).any(dim=1).double().mean()


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean accuracy over the classes that have rows."""
    return per_class_accuracy(outputs, targets).nanmean()


def per_class_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of each class's rows that are classified correctly [classes]; NaN without rows."""
    right, rows, _ = _counts(outputs, targets)
    return right / rows


def precision(outputs: Tensor, targets: Tensor, average: Average = "macro") -> Tensor:
    """The share of rows classified as a class that are of it."""
    right, rows, predicted = _counts(outputs, targets)
    return _averaged(right, predicted, rows, average, used=rows + predicted > 0)


def recall(outputs: Tensor, targets: Tensor, average: Average = "macro") -> Tensor:
    """The share of a class's rows that are classified as it."""
    right, rows, predicted = _counts(outputs, targets)
    return _averaged(right, rows, rows, average, used=rows + predicted > 0)


def f1(outputs: Tensor, targets: Tensor, average: Average = "macro") -> Tensor:
    """2 P R / (P + R) of precision P and recall R, averaged over the classes, or of each class [classes]."""
    right, rows, predicted = _counts(outputs, targets)
    return _averaged(2 * right, rows + predicted, rows, average, used=rows + predicted > 0)


METRICS: dict[str, Callable[..., Tensor]] = {
    "top_k_accuracy": top_k_accuracy,
    "balanced_accuracy": balanced_accuracy,
    "per_class_accuracy": per_class_accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
"""Of all of them higher is better."""


def _counts(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float64 [classes] each: rows classified correctly, rows, and rows classified as the class."""
    classes, found = outputs.shape[1], outputs.argmax(dim=1)
    right = torch.bincount(targets[found == targets], minlength=classes)
    rows, predicted = (torch.bincount(each, minlength=classes) for each in (targets, found))
    return right.double(), rows.double(), predicted.double()


def _averaged(part: Tensor, whole: Tensor, rows: Tensor, average: Average, used: Tensor) -> Tensor:
    """Σ part / Σ whole (micro), or the mean of part / whole over the `used` classes: plain, or weighted by rows.

    A class of which there are rows or predictions, but nothing to divide by, counts as 0; others are left out, and NaN
    where each class is shown.
    """
    if average == "micro":
        return part.sum() / whole.sum()
    each = torch.where(used, part / whole.clamp(min=1), math.nan)
    if average == "none":
        return each
    weights = used.double() if average == "macro" else rows
    return (each.nan_to_num() * weights).sum() / weights.sum()


# ── one metric of a job ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Metric:
    """One metric of a job.

    Attributes:
        label: what its columns are named after.
        compute: (outputs, targets) of a whole split, on the CPU → what it measures.
        takes_probabilities: its outputs are probabilities of the classes instead of the network's own outputs.
    """

    label: str
    compute: Callable[[Tensor, Tensor], object]
    takes_probabilities: bool = False


def columns(label: str, value: object, classes: Sequence[str]) -> dict[str, float]:
    """What a metric returned, as numbers by column name: `f1`, `f1_cat` and `f1_dog`, or `f1_` and the name of each.

    Raises:
        ValueError: it is neither a number, nor one for each class, nor a mapping to numbers.
    """
    if (number := _number(value)) is not None:
        return {label: number}
    numbers = _vector(value)
    if numbers is not None and len(numbers) == len(classes):
        return {f"{label}_{name}": number for name, number in zip(classes, numbers, strict=True)}
    if isinstance(value, Mapping) and value:
        found = {f"{label}_{name}": _number(each) for name, each in value.items()}
        if all(each is not None for each in found.values()):
            return {name: each for name, each in found.items() if each is not None}
    allowed = f"a number, one for each of the {len(classes)} classes, or a mapping of names to numbers"
    raise ValueError(f"returns {_described(value)}; allowed: {allowed}")


def _number(value: object) -> float | None:
    """A single number of any library; None for anything else."""
    if isinstance(value, str) or getattr(value, "shape", ()) not in ((), (1,)):
        return None
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def _vector(value: Any) -> list[float] | None:
    """Numbers in a row, of any library; None for anything else."""
    if len(getattr(value, "shape", (0,))) != 1 or isinstance(value, str | Mapping):
        return None
    try:
        numbers = [_number(each) for each in value]
    except TypeError:
        return None
    return [each for each in numbers if each is not None] if None not in numbers else None


def _described(value: object) -> str:
    size = getattr(value, "shape", None)
    return f"{type(value).__name__} {list(size)}" if size is not None else type(value).__name__
