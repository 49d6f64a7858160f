"""What the loop iterates over: a worker's part of each global batch, on its device, augmented."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lehr.data.augment import Augment
from lehr.data.dataset import Batch, BatchSampler, DataSubset, MixPartners


def batches(
    rows: DataSubset,
    epochs: BatchSampler,
    augment: Augment,
    epoch: int,
    first: int = 0,
    rank: int = 0,
    workers: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Worker `rank`'s part of the global batches of an epoch, from step `first` on.

    Which rows, in which order and with which augmentation is a pure function of (seed, epoch, step).
    """
    order = epochs.order(epoch).to(rows.device)  # once: each step then finds its positions where the rows are
    steps = range(first, epochs.steps)
    shares: list[tuple[torch.Tensor, MixPartners | None]]
    if augment.mixes:
        shares = [epochs.pairs(order, step, rank, workers) for step in steps]
    else:
        shares = [(epochs.positions(order, step, rank, workers), None) for step in steps]
    found = rows.batches([positions for positions, _ in shares])
    there = torch.device(device)
    for (_, pairs), batch in zip(shares, found, strict=True):
        yield augment(batch.to(there), epoch, pairs.to(there) if pairs else None, len(rows.classes))
