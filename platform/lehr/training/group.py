"""The workers that train together, as plain `torch.distributed` sees them. One process alone is a group of one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Group:
    """This worker's place among all workers, and the device it computes on."""

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
        """Waits until every worker has come here: what the first one wrote before can be read after."""
        self.sum(torch.zeros(1, device=self.device))

    def broadcast(self, value: Any) -> Any:
        """The first worker's value on every worker. What it holds must be picklable; it never leaves the group."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The value of every worker, in the order of their ranks, on every worker; picklable, as in `broadcast`."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every worker the first worker's buffers, such as running statistics."""
        for buffer in model.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, src=0)

    def parallel(self, model: nn.Module, share_buffers: bool = False) -> nn.Module:
        """The model with gradients averaged over the workers.

        Args:
            share_buffers: before each training step, give every worker the first worker's buffers.
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
