"""The workers that train together, over plain `torch.distributed`. A single process is a group of one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lehr.data.targets import RaggedTensor, together

CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This worker's rank among all workers, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes the run folder."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all workers, on every worker; `values` is overwritten."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Waits for every worker: what the first one wrote before the barrier can be read after it."""
        self.sum(torch.zeros(1, device=self.device))

    def broadcast(self, value: T) -> T:
        """The first worker's value, on every worker. It must be picklable; the pickle never leaves the group."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all workers, in the order of their ranks, on every worker; picklable, as in `broadcast`."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def rows_of_all(self, mine: Any, shares: Sequence[range]) -> Any:
        """All rows in order, on the first worker; None on the others.

        Args:
            mine: [own rows, …]; its other sizes and its type are the same on every worker. Or a `RaggedTensor`, which
                comes back on the CPU.
            shares: the places of the rows of each worker.
        """
        if self.size == 1:
            return mine
        back = torch.cat([torch.tensor(each, dtype=torch.int64) for each in shares]).argsort()
        if isinstance(mine, RaggedTensor):
            of_workers = self.gather(mine.cpu())
            return together(of_workers).index_select(0, back) if self.first else None
        padded = mine.new_zeros(max(map(len, shares)), *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)] if self.first else None
        dist.gather(padded, parts)
        if not parts:
            return None
        return torch.cat([part[: len(share)] for part, share in zip(parts, shares, strict=True)])[back.to(mine.device)]

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every worker the first worker's buffers, such as batch-norm statistics."""
        for buffer in model.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, src=0)

    def parallel(self, model: nn.Module, share_buffers: bool = False) -> nn.Module:
        """The model with gradients averaged over the workers.

        Args:
            share_buffers: give every worker the first worker's buffers before each forward pass in training.
        """
        if self.size == 1:
            return model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new spelling does not exist in older torch
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=share_buffers,
                gradient_as_bucket_view=True,
            )
