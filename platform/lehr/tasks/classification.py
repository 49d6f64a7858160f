"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lehr.tasks.base import Learned, Task
from lehr.tasks.losses import LOSSES, Activation, Loss, logits


@dataclass
class Classification(Task[Tensor]):
    """One class per image, learned by any loss of outputs [rows, classes].

    Attributes:
        names: class names in label order.
        trained: the loss that is minimised, with label smoothing and class weights.
        plain: the same loss without these two; it is what is measured.
    """

    losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES
    mixes: ClassVar[bool] = True
    score: ClassVar[str] = "accuracy"
    metric: ClassVar[str] = "accuracy"

    names: tuple[str, ...]
    trained: Loss = field(default_factory=Loss)
    plain: Loss = field(default_factory=Loss)

    @classmethod
    def fit(cls, learned: Learned) -> Self:  # type: ignore[override]  # it has no options
        return cls(learned.names, learned.trained, learned.plain)

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        plain = replace(Loss(), activation=activation)
        return cls(tuple(names), plain, plain)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in label order."""
        return self.names

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def outputs(self) -> int:
        return len(self.names)

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

    @property
    def chance(self) -> float:
        return 1 / self.outputs

    def values(self, outputs: Tensor) -> Tensor:
        return logits(outputs, self.activation).softmax(dim=-1)

    @classmethod
    def example(cls, outputs: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        made = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(0)).to(dtype)
        return made, torch.arange(rows) % outputs

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        best = np.where(unreadable, 0, values.argmax(axis=1)).astype(np.int64)
        indices = pa.array(best.astype(np.int32), pa.int32(), mask=unreadable)
        return {
            "prediction": pa.array(best, mask=unreadable),
            "class": pa.DictionaryArray.from_arrays(indices, pa.array(self.names, pa.string())),
            "probabilities": lists(values, unreadable),
        }

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        return [(name, f"{share:.1%}") for name, share in self.ranked(values)[:top]]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        ranked = self.ranked(values)
        best = [{"class": each, "probability": share} for each, share in ranked[:top]]
        return {"class": ranked[0][0], "probability": ranked[0][1], "top": best}

    def ranked(self, values: np.ndarray) -> list[tuple[str, float]]:
        """(class, probability) of every class, the most probable first."""
        return [(self.names[number], float(values[number])) for number in np.argsort(-values, kind="stable")]


def lists(values: np.ndarray, null: np.ndarray) -> pa.Array[Any]:
    """Numbers [rows, some] as a column of fixed-size lists, null where `null` [rows] is true."""
    rows, width = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(null) if rows and null.any() else None)


def class_weights(choice: str | list[float], counts: Tensor, classes: int) -> Tensor | None:
    """float64 [classes], scaled to average one over the rows: `balanced` (by inverse frequency) or given ones.

    None for `none`.

    Args:
        counts: [classes], the training rows of each, or the pixels of masks.

    Raises:
        ValueError: a list of the wrong length or with a value that is not positive.
    """
    if choice == "none":
        return None
    counts = counts.to(torch.float64)
    if choice == "balanced":
        weights = 1 / counts.clamp(min=1)
    else:
        if len(choice) != classes:
            raise ValueError(f"{len(choice)} weights for {classes} classes; allowed: one for each class")
        weights = torch.tensor(choice, dtype=torch.float64)
    return weights * counts.sum() / (weights * counts).sum()


TASK = Classification
