"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lehr.tasks.losses import Activation, Loss, logits


@dataclass
class Classification:
    """One class per image, learned by any loss of outputs [rows, classes].

    Attributes:
        classes: class names in label order.
        trained: the loss that is minimised, with label smoothing and class weights.
        plain: the same loss without these two; it is what is measured.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    classes: tuple[str, ...]
    trained: Loss = field(default_factory=Loss)
    plain: Loss = field(default_factory=Loss)

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return (inputs,)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.trained(outputs, targets)

    def sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {
            "loss": self.plain(outputs, targets),
            "correct": (outputs.argmax(dim=1) == targets).sum(),
        }

    def metrics(self, sums: Mapping[str, float], rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows, "accuracy": sums["correct"] / rows}

    @property
    def activation(self) -> Activation:
        return self.plain.activation

    def chance_loss(self, dtype: torch.dtype) -> float:
        count = self.outputs
        blank = torch.zeros(count, count, dtype=dtype)
        outputs = blank + 1 / count if self.activation == "none" else blank
        return float(self.plain(outputs, torch.arange(count))) / count

    def probabilities(self, outputs: Tensor) -> Tensor:
        return logits(outputs, self.activation).softmax(dim=-1)


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
