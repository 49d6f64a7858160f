"""What the model that was kept says of the validation rows, where a row has no one class: for the task itself, which
may choose thresholds on them, and for the report."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from lehr.data.targets import readable
from lehr.runs.examples import Example, Examples
from lehr.training.answers import MISTAKES, MOST_ROWS, SAMPLES, pictures
from lehr.training.group import Group
from lehr.training.setup import Plan

BATCH = 1024


class Predicted(NamedTuple):
    """Predictions for the readable rows of a split, on the first worker.

    Attributes:
        positions: int64 [rows], in the split. ids: int64 [rows].
        values, labels: [rows, names].
    """

    positions: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    labels: np.ndarray


@torch.no_grad()
def predict_validation(model: nn.Module, plan: Plan, group: Group) -> Predicted | None:
    """The predictions of all workers together for the validation rows, or for evenly spaced ones of very many; on the
    first worker, None on the others."""
    rows, training = plan.splits.validation, model.training
    asked = torch.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS), dtype=torch.float64).round().long()
    mine = asked[group.rank :: group.size]
    model.eval()
    width = len(rows.classes)
    found = [torch.zeros(0, 2 + 2 * width, dtype=torch.float64, device=group.device)]
    for batch in rows.batches(mine.split(BATCH)) if len(mine) else ():
        batch = batch.to(group.device)
        values = plan.task.values(plan.cast(model(*plan.arguments(batch))))
        cells = (batch.ids[:, None], readable(batch.targets)[:, None], values, batch.targets)
        found.append(torch.cat([each.double() for each in cells], dim=1))
    model.train(training)
    together = group.rows_of_all(torch.cat(found), len(asked))
    if together is None:
        return None
    table = together.cpu().numpy()
    known = table[:, 1] > 0
    ids, values, labels = table[known, 0].astype(np.int64), table[known, 2 : 2 + width], table[known, 2 + width :]
    return Predicted(asked.numpy()[known], ids, values.astype(np.float32), labels)


def examples(found: Predicted, plan: Plan) -> tuple[Examples, np.ndarray] | None:
    """What the report shows of the predictions, and the error of each; None where there are none."""
    if not len(found.ids):
        return None
    task, rows = plan.task, plan.splits.validation
    errors = task.errors(found.values, found.labels)
    worst = [int(each) for each in np.argsort(-errors, kind="stable")[:MISTAKES] if errors[each] > 0]
    generator = torch.Generator().manual_seed(plan.job.seed)
    chosen = list(dict.fromkeys([*worst, *torch.randperm(len(errors), generator=generator)[:SAMPLES].tolist()]))
    drawn = pictures(rows, torch.from_numpy(found.positions[chosen]))
    shown = [
        Example(int(found.ids[at]), float(errors[at]), tuple(task.caption(found.values[at], found.labels[at])), picture)
        for at, picture in zip(chosen, drawn, strict=True)
    ]
    head, lines = task.table(found.values, found.labels)
    table = tuple(head), tuple(map(tuple, lines))
    return Examples(rows.classes, found.values, found.labels, *table, tuple(shown)), errors
