"""Batch norm cannot train on a single value per channel: a job whose batches come to that is refused before it starts.

In training, batch norm needs the variance of each channel. Where an image has one value per channel left (after pooling
or flattening), a batch of one row has none, and torch raises an error in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lehr.data.epoch_order import slices
from lehr.training.setup import Plan


def refuse_single_rows(plan: Plan, model: nn.Module, workers: int) -> None:
    """Raises JobError where a batch norm would see one row with one value per channel; it says what to type instead.

    Args:
        model: on the CPU, as `Plan.build_model` makes it.
        workers: that train together.
    """
    section, rows = plan.job.train, plan.sampler.rows
    apart = workers > 1 and not section.sync_batch_norm
    across = workers if apart else 1
    if plan.job.finetune and plan.job.finetune.batch_norm == "frozen":
        return
    shards = plan.sampler.shards
    if not has_single_row(rows, section.batch_size, section.gradient_accumulation, across, shards):
        return
    if not needs_rows(model, torch.zeros(2, *plan.preprocess.shape, dtype=plan.dtype)):
        return
    what = f"batch norm needs 2 rows, and of {rows:,} training rows in batches of {section.batch_size}"
    if section.gradient_accumulation > 1:
        for parts in range(section.gradient_accumulation - 1, 0, -1):
            if not has_single_row(rows, section.batch_size, parts, across, shards):
                found = f"{what}, each in {section.gradient_accumulation} parts, some part has 1"
                raise plan.job.error(
                    "train.gradient_accumulation", f"{found}; type: train.gradient_accumulation={parts}"
                )
    if apart and not has_single_row(rows, section.batch_size, section.gradient_accumulation, 1, shards):
        found = f"{what}, some worker of {workers} gets 1"
        raise plan.job.error("train.sync_batch_norm", f"{found}; type: train.sync_batch_norm=true")
    size = next(
        (
            each
            for each in (*range(section.batch_size - 1, 1, -1), *range(section.batch_size + 1, rows + 2))
            if not has_single_row(rows, each, section.gradient_accumulation, across, shards)
        ),
        None,
    )
    instead = f"type: train.batch_size={size}" if size else "allowed: a network without batch norm, or more rows"
    raise plan.job.error("train.batch_size", f"{what} some batch or part of one has 1; {instead}")


def has_single_row(rows: int, batch_size: int, parts: int, workers: int, shards: int = 1) -> bool:
    """Whether any worker computes a pass over exactly one row.

    Args:
        rows: in an epoch. parts: of a global batch, one after the other (`train.gradient_accumulation`).
        workers: among which each part is divided; 1 where batch norm is over all of them.
        shards: data shards of streamed rows, else 1.
    """
    sizes = {min(batch_size, rows), rows % batch_size} - {0}
    return any(share == 1 for size in sizes for share in _shares(size, parts, workers, shards))


def _shares(size: int, parts: int, workers: int, shards: int) -> Iterator[int]:
    """The rows of each worker's pass over each part of a global batch."""
    parts, worker = min(parts, size), slices(size, shards).worker(workers)
    for part in range(parts):
        yield from np.bincount(worker[part * size // parts : (part + 1) * size // parts], minlength=workers).tolist()


@torch.no_grad()
def needs_rows(model: nn.Module, images: Tensor) -> bool:
    """Whether a batch norm of the network gets a single value per channel from each image [2, channels, …]."""
    found: list[int] = []
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].numel() // inputs[0].shape[1])

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    mode = model.training
    try:
        model.eval()(images)
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    return any(values <= len(images) for values in found)
