"""What the model that was kept says of the validation rows, where a row has no one class: for the task itself, which
may choose thresholds on them, and for the report."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from lehr.data.labels import Labels, row_of
from lehr.data.targets import as_labels, readable, together
from lehr.runs.examples import Example, Examples
from lehr.tasks.base import Task
from lehr.training.answers import MISTAKES, MOST_ROWS, SAMPLES, as_png, images_at
from lehr.training.evaluation import rows_at_once
from lehr.training.group import Group
from lehr.training.setup import Plan

PLACES = 256
"""Pixels of the longer side of a picture into which places are drawn."""


class Predicted(NamedTuple):
    """Predictions for the readable rows of a split, on the first worker.

    Attributes:
        positions: int64 [rows], in the split. ids: int64 [rows].
        values, labels: [rows, …], as the task has them; labels of different lengths are a `Ragged`.
    """

    positions: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    labels: Labels


@torch.no_grad()
def predict_validation(model: nn.Module, plan: Plan, group: Group) -> Predicted | None:
    """The predictions of all workers together for the validation rows, or for evenly spaced ones of very many; on the
    first worker, None on the others."""
    rows, training = plan.splits.validation, model.training
    asked = torch.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS), dtype=torch.float64).round().long()
    shares = [rows.share_of(len(asked), rank, group.size) for rank in range(group.size)]
    mine = asked[torch.tensor(shares[group.rank], dtype=torch.int64)]
    model.eval()
    found: list[tuple[Any, ...]] = []
    # A worker without rows learns from an empty batch what the others have of each.
    for batch in rows.batches(mine.split(rows_at_once(plan)) if len(mine) else [mine]):
        batch = batch.to(group.device)
        values = plan.task.decided(plan.task.values(plan.cast(model(*plan.arguments(batch)))))
        found.append((batch.ids, readable(batch.targets), values, batch.targets))
    model.train(training)
    each = [group.rows_of_all(together(some), shares) for some in zip(*found, strict=True)]
    if each[0] is None:
        return None
    ids, known, values, targets = (some.cpu() for some in each)
    found_values = values[known].float() if values.is_floating_point() else values[known]
    return Predicted(asked[known].numpy(), ids[known].numpy(), found_values.numpy(), as_labels(targets[known]))


def examples(found: Predicted, plan: Plan) -> tuple[Examples, np.ndarray] | None:
    """What the report shows of the predictions, and the error of each; None where there are none."""
    if not len(found.ids):
        return None
    task, rows = plan.task, plan.splits.validation
    errors = task.errors(found.values, found.labels)
    worst = [int(each) for each in np.argsort(-errors, kind="stable")[:MISTAKES] if errors[each] > 0]
    generator = torch.Generator().manual_seed(plan.job.seed)
    chosen = list(dict.fromkeys([*worst, *torch.randperm(len(errors), generator=generator)[:SAMPLES].tolist()]))
    images = images_at(rows, torch.from_numpy(found.positions[chosen]))
    shown = []
    for at, image in zip(chosen, images, strict=True):
        value, label = found.values[at], row_of(found.labels, at)
        caption = tuple(task.caption(value, label))
        shown.append(Example(int(found.ids[at]), float(errors[at]), caption, _picture(task, image, value, label)))
    head, lines = task.table(found.values, found.labels)
    table = tuple(head), tuple(map(tuple, lines))
    labels = [row_of(found.labels, at) for at in range(len(found.ids))]
    values, labels = task.recorded(found.values), list(task.recorded(labels))
    panels = tuple(each._asdict() for each in task.panels(found.values, found.labels))
    return Examples(rows.classes, values, labels, *table, tuple(shown), task.legend, panels), errors


def _picture(task: Task[Any], image: Image.Image, value: np.ndarray, label: np.ndarray) -> bytes:
    """The image as a PNG; where labels are places, large enough to see what is drawn into it."""
    if not task.places:
        return as_png(image)
    scale = PLACES / max(image.size)
    large = image.resize((round(image.width * scale), round(image.height * scale)))
    drawn = task.draw(large, scale, value, label)
    return as_png(drawn, max(drawn.size))
