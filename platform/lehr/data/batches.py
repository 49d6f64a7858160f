"""The batches that a training loop iterates over: a worker's share of each global batch, augmented on its device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lehr.data.augment import Augment
from lehr.data.dataset import Batch, BatchSampler, DataSubset, MixPartners
from lehr.data.epoch_order import EpochOrder
from lehr.data.streaming import StreamedSubset


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
    target, steps = torch.device(device), range(first, sampler.steps)
    if isinstance(rows, StreamedSubset) and (in_shards := sampler.in_shards(epoch)):
        found = _streamed(rows, sampler, in_shards, steps, rank, workers, mixes=augment.mixes)
    else:
        found = _gathered(rows, sampler, epoch, steps, rank, workers, mixes=augment.mixes)
    for partners, batch in found:
        yield augment(batch.to(target), epoch, partners.to(target) if partners else None, len(rows.classes))


def _gathered(
    rows: DataSubset, sampler: BatchSampler, epoch: int, steps: range, rank: int, workers: int, *, mixes: bool
) -> Iterator[tuple[MixPartners | None, Batch]]:
    """In an order that is held as a number for each row."""
    order = sampler.order(epoch).to(rows.device)  # copied once per epoch, not once per step
    shares: list[tuple[torch.Tensor, MixPartners | None]]
    if mixes:
        shares = [sampler.positions_and_partners(order, step, rank, workers) for step in steps]
    else:
        shares = [(sampler.positions(order, step, rank, workers), None) for step in steps]
    gathered = rows.batches([positions for positions, _ in shares])
    for (_, partners), batch in zip(shares, gathered, strict=True):
        yield partners, batch


def _streamed(
    rows: StreamedSubset,
    sampler: BatchSampler,
    order: EpochOrder,
    steps: range,
    rank: int,
    workers: int,
    *,
    mixes: bool,
) -> Iterator[tuple[MixPartners | None, Batch]]:
    """In an order in data shards, which is computed step by step."""
    share: dict[int, tuple[np.ndarray, MixPartners | None]] = {}
    for size in {sampler.size(step) for step in (steps.start, sampler.steps - 1) if step in steps}:
        share[size] = sampler.needed(size, rank, workers) if mixes else (sampler.own(size, rank, workers), None)
    wanted = ((step, share[sampler.size(step)][0]) for step in steps)
    found = rows.epoch(order, wanted, sampler.reach(rank, workers, mixes=mixes))
    for step, batch in zip(steps, found, strict=True):
        yield share[sampler.size(step)][1], batch
