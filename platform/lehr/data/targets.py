"""The labels of a batch as tensors, on its device: `lehr.data.labels` in torch.

A `RaggedTensor` has the few methods of a tensor that a training needs of targets: rows are chosen, cut, and moved to a
device in the same words. So nothing between the data and the task asks which of the two it has.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lehr.data.labels import Labels, Ragged, Unread
from lehr.tasks.forms import NOT_COUNTED, UNREAD_PIXEL, UNREADABLE


@dataclass(frozen=True)
class RaggedTensor:
    """Rows of different lengths: row i is `values[starts[i] : starts[i + 1]]`.

    Attributes:
        values: [total, …], those of all rows, one after the other.
        starts: int64 [rows + 1].
        known: bool [rows]; false for a streamed row whose image could not be read.
    """

    values: Tensor
    starts: Tensor
    known: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> RaggedTensor:
        """From the values of each row, one row at least."""
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        return cls.from_lengths(torch.cat(list(rows)), lengths, torch.ones_like(lengths, dtype=torch.bool))

    @classmethod
    def from_lengths(cls, values: Tensor, lengths: Tensor, known: Tensor) -> RaggedTensor:
        """From the lengths of the rows, int64 [rows]."""
        return cls(values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), known)

    def __len__(self) -> int:
        return len(self.known)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def lengths(self) -> Tensor:
        """int64 [rows]."""
        return self.starts.diff()

    @property
    def row_of(self) -> Tensor:
        """int64 [total]: the row that each value belongs to."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.values))

    def rows(self) -> tuple[Tensor, ...]:
        """The values of each row."""
        return self.values.split(self.lengths.tolist())

    def index_select(self, dim: int, rows: Tensor) -> RaggedTensor:
        """Some rows, in this order, as new tensors. `dim` is 0, as of a tensor."""
        lengths = self.lengths.index_select(0, rows)
        ends = lengths.cumsum(0)
        shift = torch.repeat_interleave(self.starts.index_select(0, rows) - (ends - lengths), lengths)
        places = shift + torch.arange(len(shift), device=self.device)
        return RaggedTensor.from_lengths(
            self.values.index_select(dim, places), lengths, self.known.index_select(0, rows)
        )

    def __getitem__(self, rows: slice | Tensor) -> RaggedTensor:
        """Some rows, in this order: a slice, positions, or bool [rows]."""
        return self.index_select(0, torch.arange(len(self), device=self.device)[rows])

    def to(self, device: torch.device, non_blocking: bool = False) -> RaggedTensor:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RaggedTensor:
        return self._each(lambda tensor: tensor.pin_memory())

    def cpu(self) -> RaggedTensor:
        return self.to(torch.device("cpu"))

    def _each(self, change: Any) -> RaggedTensor:
        return RaggedTensor(change(self.values), change(self.starts), change(self.known))


Targets: TypeAlias = "Tensor | RaggedTensor"
"""What a batch has as its targets."""


def as_targets(labels: Labels) -> Any:
    """The same labels as tensors that share their memory."""
    if isinstance(labels, Unread):  # no memory for pixels of which nothing is known
        return torch.full((1, 1, 1), NOT_COUNTED, dtype=torch.uint8).expand(len(labels), *labels.size)
    with warnings.catch_warnings():
        # The arrays are read-only. What is made of them is only gathered from.
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(labels, Ragged):
            return RaggedTensor(*map(torch.from_numpy, (labels.values, labels.starts, labels.known)))
        return torch.from_numpy(labels)


def as_labels(targets: Any) -> Labels:
    """The inverse of `as_targets`, of targets on the CPU."""
    if isinstance(targets, RaggedTensor):
        return Ragged(targets.values.numpy(), targets.starts.numpy(), targets.known.numpy())
    return targets.numpy()


def readable(targets: Any) -> Tensor:
    """bool [rows]: the rows whose image could be read; of others a batch has no label."""
    if isinstance(targets, RaggedTensor):
        return targets.known
    first = targets.flatten(1)[:, 0] if targets.ndim > 1 else targets
    if targets.dtype == torch.uint8:
        return first != UNREAD_PIXEL
    return ~first.isnan() if targets.is_floating_point() else first != UNREADABLE


def blank(targets: Any, rows: int, device: torch.device) -> Any:
    """Targets of the same form for so many blank images."""
    if isinstance(targets, RaggedTensor):
        values = torch.zeros(rows, *targets.values.shape[1:], dtype=targets.values.dtype, device=device)
        one = torch.ones(rows, dtype=torch.int64, device=device)
        return RaggedTensor.from_lengths(values, one, one.bool())
    return torch.zeros(rows, *targets.shape[1:], dtype=targets.dtype, device=device)


def together(parts: Sequence[Any]) -> Any:
    """The rows of several, one after the other."""
    if not isinstance(parts[0], RaggedTensor):
        return torch.cat(list(parts))
    lengths = torch.cat([part.lengths for part in parts])
    return RaggedTensor.from_lengths(
        torch.cat([part.values for part in parts]), lengths, torch.cat([part.known for part in parts])
    )
