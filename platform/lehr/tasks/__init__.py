"""What a task is: how many outputs the head has, the loss, and what is measured. Classification first.

The loop never looks at targets or outputs itself. A task says what the network is called with, and gives *sums over
rows* (of the loss and of whatever the metrics need), because sums over workers and batches can be added exactly, where
means of means cannot. `metrics` turns the sums over a whole split into the numbers that are recorded. README.md beside
this file sketches how object detection and captioning fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor

from lehr.tasks.classification import Classification

__all__ = ["Classification", "Task"]


class Task(Protocol):
    """The seam between the loop and what is learned."""

    metric_names: ClassVar[tuple[str, ...]]
    """What `metrics` returns; `loss` is always among them."""

    @property
    def outputs(self) -> int:
        """Size of the head."""
        ...

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[Any, ...]:
        """What the network is called with: the prepared images, and whatever else it needs to learn from targets."""
        ...

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The training loss summed over the rows: a scalar with a gradient. `outputs` is what the network returned,
        in the precision it was computed in."""
        ...

    def sums(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """What to add up over a split: tensors of fixed shapes, such as counts by score for a precision-recall curve.
        `loss` is among them, a scalar: the plain loss, without smoothing or weights."""
        ...

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        """The metrics of a split from its sums (numbers, and lists of them) and its number of rows."""
        ...
