"""The batches that a training loop iterates over: a worker's share of each global batch, augmented on its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lehr.data.augment import Augment
from lehr.data.dataset import Batch, BatchSampler, DataSubset, MixPartners


def batches(
    rows: DataSubset,
    sampler: BatchSampler,
    augment: Augment,
    epoch: int,
    first: int = 0,
    rank: int = 0,
    workers: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The share of worker `rank` in the global batches of an epoch, beginning with step `first`.

    Rows, their order and their augmentation are a pure function of (seed, epoch, step).
    """
    order = sampler.order(epoch).to(rows.device)  # copied once per epoch, not once per step
    steps = range(first, sampler.steps)
    shares: list[tuple[torch.Tensor, MixPartners | None]]
    if augment.mixes:
        shares = [sampler.positions_and_partners(order, step, rank, workers) for step in steps]
    else:
        shares = [(sampler.positions(order, step, rank, workers), None) for step in steps]
    gathered = rows.batches([positions for positions, _ in shares])
    target = torch.device(device)
    for (_, partners), batch in zip(shares, gathered, strict=True):
        yield augment(batch.to(target), epoch, partners.to(target) if partners else None, len(rows.classes))
