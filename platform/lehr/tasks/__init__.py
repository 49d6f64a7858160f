"""What a task is: how many outputs the head has, the loss, and what is measured. Classification first.

The loop never looks at targets itself. A task gives it *sums over rows* (of the loss and of whatever the metrics need),
because sums over workers and batches can be added exactly, where means of means cannot. `metrics` turns the sums over a
whole split into the numbers that are recorded.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss summed over the rows: a scalar with a gradient."""
        ...

    def sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Scalars to add up over a split, `loss` among them (the plain loss, without smoothing or weights)."""
        ...

    def metrics(self, sums: dict[str, float], rows: int) -> dict[str, float]:
        """The metrics of a split from its sums and its number of rows."""
        ...
