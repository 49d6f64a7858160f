"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Classification:
    """Cross entropy over the classes, with label smoothing and class weights for training.

    Attributes:
        classes: class names in label order.
        label_smoothing: share of the target spread evenly over the classes (Szegedy et al., 2016).
        class_weights: float64 [classes] or None. Weights scale each row's loss; they should average to one over the
            training rows, so that the loss is a mean over rows whatever the number of workers.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    classes: tuple[str, ...]
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return (inputs,)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(outputs)
        if targets.is_floating_point():  # shares of the classes, for mixed images
            targets = targets.to(outputs.dtype)
        return F.cross_entropy(outputs, targets, weights, reduction="sum", label_smoothing=self.label_smoothing)

    def sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {
            "loss": F.cross_entropy(outputs, targets, reduction="sum"),
            "correct": (outputs.argmax(dim=1) == targets).sum(),
        }

    def metrics(self, sums: Mapping[str, float], rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows, "accuracy": sums["correct"] / rows}


def class_weights(choice: str | list[float], labels: Tensor, classes: int) -> Tensor | None:
    """float64 [classes], scaled to average one over the rows: `balanced` (by inverse frequency) or given ones.

    None for `none`.

    Raises:
        ValueError: a list of the wrong length or with a value that is not positive.
    """
    if choice == "none":
        return None
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    if choice == "balanced":
        weights = 1 / counts.clamp(min=1)
    else:
        if len(choice) != classes:
            raise ValueError(f"{len(choice)} weights for {classes} classes; allowed: one for each class")
        weights = torch.tensor(choice, dtype=torch.float64)
    return weights * counts.sum() / (weights * counts).sum()
