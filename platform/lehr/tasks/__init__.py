"""What a task is: how many outputs the head has, the loss, and what is measured. Classification is the one there is.

The loop never looks into targets or outputs. A task says what the network is called with, and gives *sums over rows*
(of the loss and of whatever its own metrics need): sums add up exactly over workers and batches, which means of means
do not. `metrics` turns the sums over a whole split into the numbers that are recorded. What a job lists under `metrics`
is computed from the outputs and targets of the whole split (`metrics.py`). README.md beside this file sketches how
object detection and captioning fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from lehr.tasks.classification import Classification
from lehr.tasks.losses import Activation

__all__ = ["Classification", "Outputs", "Task"]

Outputs: TypeAlias = "Tensor | Sequence[Outputs] | Mapping[str, Outputs]"
"""What a network may return: a tensor, or tensors in a tuple, list or mapping."""

OutputsOfTask = TypeVar("OutputsOfTask", contravariant=True)


class Task(Protocol[OutputsOfTask]):
    """What the loop knows of what is learned; `OutputsOfTask` is what the task's networks return."""

    metric_names: ClassVar[tuple[str, ...]]
    """What `metrics` returns; `loss` is always among them."""

    @property
    def outputs(self) -> int:
        """Size of the head."""
        ...

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[object, ...]:
        """What the network is called with: the prepared images, and whatever else it needs to learn from targets."""
        ...

    def loss(self, outputs: OutputsOfTask, targets: Tensor) -> Tensor:
        """The training loss summed over the rows: a scalar with a gradient, of outputs in the type of the weights."""
        ...

    def sums(self, outputs: OutputsOfTask, targets: Tensor) -> dict[str, Tensor]:
        """What to add up over a split: tensors of fixed shapes, such as counts by score for a precision-recall curve.
        `loss` is among them, a scalar: the plain loss, without smoothing or weights."""
        ...

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        """The metrics of a split from its sums (numbers, and lists of them) and its number of rows."""
        ...

    @property
    def activation(self) -> Activation:
        """What makes the outputs of its networks probabilities."""
        ...

    def chance_loss(self, dtype: torch.dtype) -> float:
        """The plain loss of a row, if the network tells nothing apart: with outputs that are all zero.

        NaN where that means nothing.
        """
        ...

    def probabilities(self, outputs: OutputsOfTask) -> Tensor:
        """What metrics that take probabilities get instead of outputs."""
        ...
