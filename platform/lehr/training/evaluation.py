"""Exact evaluation: every row of a split counted once, whatever the number of workers."""

from __future__ import annotations

import torch
from torch import nn

from lehr.data.dataset import UNREADABLE, DataSubset
from lehr.training.group import Group
from lehr.training.setup import Plan


@torch.no_grad()
def evaluate(model: nn.Module, rows: DataSubset, plan: Plan, group: Group, batch_size: int = 1024) -> dict[str, float]:
    """The task's metrics over all of `rows`, without augmentation, in evaluation mode; the same on every worker.

    Worker r of n takes rows r, r + n, …; sums over rows are added up over batches and workers in float64, so nothing is
    padded, dropped or averaged twice. The model goes back to the mode it was in.
    """
    training = model.training
    model.eval()
    totals: dict[str, torch.Tensor] = {}
    mine = torch.arange(len(rows))[group.rank :: group.size]
    # A worker without rows still takes part in the sum, and needs the names of the sums for that.
    for batch in rows.batches(mine.split(batch_size) if len(mine) else [mine]):
        batch = batch.to(group.device)
        outputs = model(*plan.arguments(batch))
        read = batch.targets.flatten(1)[:, 0] if batch.targets.ndim > 1 else batch.targets
        sums = {**plan.task.sums(outputs, batch.targets), "rows": (read != UNREADABLE).sum()}
        for name, value in sums.items():
            totals[name] = totals.get(name, torch.zeros(value.shape, dtype=torch.float64, device=group.device)) + value
    model.train(training)
    names = sorted(totals)
    together = group.sum(torch.cat([totals[name].flatten() for name in names]))
    parts = together.split([totals[name].numel() for name in names])
    summed = {name: part.reshape(totals[name].shape).tolist() for name, part in zip(names, parts, strict=True)}
    return plan.task.metrics(summed, max(1, round(summed.pop("rows"))))
