"""Exact evaluation: every row of a split counts once, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lehr.data.dataset import DataSubset
from lehr.data.randomness import key
from lehr.data.targets import readable as readable_rows
from lehr.data.targets import together as rows_together
from lehr.errors import LehrError, TrainingError
from lehr.models.lightning import measure, step_of
from lehr.training.averaging import STATISTICS_ROWS
from lehr.training.group import Group
from lehr.training.setup import Plan

LOGGED = "logged: "
MOST_AT_ONCE, MOST_PIXELS = 1024, 1024 * 64 * 64  # rows of a forward pass, and pixels of all of them together


def rows_at_once(plan: Plan) -> int:
    """How many rows are evaluated in one forward pass: a thousand photographs at once take gigabytes in a deep network.

    Depends on the size of the images alone, so that every machine adds up the same sums.
    """
    _, height, width = plan.preprocess.shape
    return max(1, min(MOST_AT_ONCE, MOST_PIXELS // (height * width)))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    rows: DataSubset,
    plan: Plan,
    group: Group,
    batch_size: int | None = None,
    split: str = "validation",
) -> dict[str, float]:
    """The metrics of the task and of the job over all of `rows`, without augmentation, in evaluation mode.

    The same on every worker. Each takes its share of the rows (`DataSubset.share`). Sums over rows are added over
    batches and workers in float64, so nothing is padded, dropped or averaged twice; the job's metrics see the outputs
    of all rows at once. The model returns to the mode it was in.
    """
    training = model.training
    model.eval()
    totals: dict[str, Tensor] = {}
    kept: list[tuple[Any, Tensor]] = []
    batch_size = batch_size or rows_at_once(plan)
    # A worker without rows still takes part in the sum, and learns the names of the sums from an empty batch.
    for index, batch in enumerate(rows.in_order(group.rank, group.size, batch_size)):
        batch = batch.to(group.device)
        outputs = plan.cast(model(*plan.arguments(batch)))
        readable = readable_rows(batch.targets)
        sums = {**plan.task.sums(*plan.known(outputs, batch.targets)), "rows": readable.sum()}
        if plan.lightning and (wanted := plan.lightning.names(split)):
            inputs = plan.inputs(batch.inputs)[readable]
            sums |= _logged(model, split, wanted, inputs, batch.targets[readable], index)
        for name, value in sums.items():
            totals[name] = totals.get(name, torch.zeros(value.shape, dtype=torch.float64, device=group.device)) + value
        if plan.metrics or plan.task.ranks:
            kept.append((plan.task.kept(outputs) if plan.task.ranks else outputs, batch.targets))
    model.train(training)
    names = sorted(totals)
    together = group.sum(torch.cat([totals[name].flatten() for name in names]))
    parts = together.split([totals[name].numel() for name in names])
    summed = {name: part.reshape(totals[name].shape).tolist() for name, part in zip(names, parts, strict=True)}
    count = max(1, round(summed.pop("rows")))
    found = {name.removeprefix(LOGGED): summed.pop(name) / count for name in names if name.startswith(LOGGED)}
    found = {**plan.task.metrics(summed, count), **found}
    return found | _of_whole_split(kept, rows, plan, group) if kept else found


def _logged(
    model: nn.Module, split: str, names: Sequence[str], inputs: Tensor, targets: Tensor, index: int
) -> dict[str, Tensor]:
    """Sums over the rows of what a LightningModule logs as means, each under `LOGGED` and its name.

    Raises TrainingError where it logs something else than it did when it was tried.
    """
    found = measure(model, split, inputs, targets, index)
    if len(inputs) and set(found) != set(names):
        known, now = ", ".join(names), ", ".join(found) or "nothing"
        step = step_of(model, split)
        raise TrainingError(f"{step} logs {now} for one batch, and {known} for another; allowed: the same")
    nothing = torch.zeros((), dtype=torch.float64, device=inputs.device)
    return {f"{LOGGED}{name}": found.get(name, nothing) * len(inputs) for name in names}


def _of_whole_split(kept: list[tuple[Any, Tensor]], rows: DataSubset, plan: Plan, group: Group) -> dict[str, float]:
    """The task's metrics that need all rows at once, and those of the job; the same on every worker.

    Args:
        kept: outputs and targets of this worker's batches.
        rows: the split.
    """
    shares = [rows.share(rank, group.size) for rank in range(group.size)]
    outputs, targets = (group.rows_of_all(rows_together(each), shares) for each in zip(*kept, strict=True))
    found: dict[str, float] | LehrError = {}
    if outputs is not None and targets is not None:
        try:
            known = readable_rows(targets)
            found = plan.task.whole(outputs[known].detach().cpu(), targets[known].cpu())
            if plan.metrics:
                found |= plan.metrics.measure(outputs, targets, plan.task, plan.splits.train.classes)
        except LehrError as error:
            if group.size == 1:
                raise
            found = error  # the other workers wait for the numbers: all must learn that there are none
    found = group.broadcast(found)
    if isinstance(found, LehrError):
        raise found
    return found


def statistics_inputs(plan: Plan, group: Group) -> Iterator[Tensor]:
    """Training rows without augmentation, as the network takes them, to compute batch-norm statistics of an average on.

    Which rows, and in which batches, is the same every time. The batches are as large as the parts of a training step.
    """
    job, rows = plan.job, plan.splits.train
    assert job.train.averaging is not None
    torch.manual_seed(key(job.seed, "statistics"))
    chosen = rows.some_rows(key(job.seed, "statistics"), job.train.averaging.statistics_rows or STATISTICS_ROWS)
    parts = chosen.tensor_split(-(-len(chosen) * job.train.gradient_accumulation // job.train.batch_size))
    for batch in rows.batches([part[group.rank :: group.size] for part in parts]):
        yield plan.inputs(batch.to(group.device).inputs)
