"""What the model that was kept says of each validation row, for the report."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lehr.data.dataset import Batch, DataSubset
from lehr.data.pixels import MODES
from lehr.data.randomness import key
from lehr.runs.answers import Answers
from lehr.tasks.forms import UNREADABLE
from lehr.training.evaluation import rows_at_once
from lehr.training.group import Group
from lehr.training.setup import Plan

MISTAKES, SAMPLES = 24, 12
"""How many pictures are kept of the mistakes that the model is surest of, and of rows by chance."""
PICTURE = 128
"""Pixels of the longer side of a picture, at most."""
MOST_ROWS = 200_000
"""Of a larger split this many rows are answered, evenly spaced."""


@torch.no_grad()
def answers(model: nn.Module, plan: Plan, group: Group) -> Answers | None:
    """The answers of all workers together, on the first one; None on the others, and where no row is readable."""
    rows, training = plan.splits.validation, model.training
    asked = torch.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS), dtype=torch.float64).round().long()
    shares = [rows.share_of(len(asked), rank, group.size) for rank in range(group.size)]
    mine = asked[torch.tensor(shares[group.rank], dtype=torch.int64)]
    model.eval()
    found = [torch.zeros(0, 4, dtype=torch.float64, device=group.device)]
    for batch in rows.batches(mine.split(rows_at_once(plan))) if len(mine) else ():
        found.append(_answered(model, plan, batch.to(group.device)))
    model.train(training)
    together = group.rows_of_all(torch.cat(found), shares)
    if together is None:
        return None
    together = together.cpu()
    readable = together[:, 1] != UNREADABLE
    positions, columns = asked[readable], together[readable].numpy()
    if not len(columns):
        return None
    ids, labels, predicted, probability = columns.T
    given = Answers(
        rows.classes,
        ids.astype(np.int64),
        labels.astype(np.int32),
        predicted.astype(np.int32),
        probability.astype(np.float32),
    )
    samples = torch.randperm(len(columns), generator=torch.Generator().manual_seed(key(plan.job.seed, "samples")))
    shown = list(dict.fromkeys([*given.mistakes(MISTAKES), *samples[:SAMPLES].tolist()]))
    given.pictures.update(zip(shown, pictures(rows, positions[shown]), strict=True))
    return given


def _answered(model: nn.Module, plan: Plan, batch: Batch) -> Tensor:
    """float64 [rows, 4]: id, label, answer and its probability."""
    shares = plan.task.values(plan.cast(model(*plan.arguments(batch))))
    probability, predicted = shares.double().max(dim=1)
    return torch.stack([batch.ids.double(), batch.targets.double(), predicted.double(), probability], dim=1)


def pictures(rows: DataSubset, positions: Tensor) -> list[bytes]:
    """The images at these positions as PNG files."""
    return [as_png(each) for each in images_at(rows, positions)]


def images_at(rows: DataSubset, positions: Tensor) -> list[Image.Image]:
    """The images at these positions."""
    [batch] = rows.batches([positions])
    pixels = batch.inputs.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return [Image.fromarray(each[:, :, 0] if each.shape[2] == 1 else each, MODES[each.shape[2]]) for each in pixels]


def as_png(image: Image.Image, side: int = PICTURE) -> bytes:
    """An image as a PNG file, whose sides have that many pixels at most."""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
