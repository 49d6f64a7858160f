"""A picture of nearest neighbours in feature space: what the network takes to be alike."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from lehr.data.dataset import DataSubset
from lehr.training.setup import Plan
from lehr.transfer.features import Features

ASKED, NEAREST = 8, 6  # images asked about, and neighbours of each
PAPER, INK, FAINT, GOOD, BAD = (252, 252, 250), (34, 34, 34), (120, 120, 118), (47, 125, 79), (192, 54, 54)
SIDE, GAP, EDGE, LINE = 84, 8, 3, 18  # pixels


def nearest(train: Features, asked: Features, count: int) -> Tensor:
    """For each row asked about, the places in `train` of its nearest by cosine: int64 [asked, count]."""
    alike = F.normalize(asked.values, dim=1) @ F.normalize(train.values, dim=1).T
    return alike.topk(min(count, len(train)), dim=1).indices


def picture(plan: Plan, train: Features, validation: Features) -> bytes | None:
    """A PNG: in each line a validation image and its nearest training images, framed by whether the class agrees.

    Classes are asked about in turn, so that every one of a few is seen.
    """
    train = train.of(train.ids, augmented=False)
    if not len(train) or not len(validation):
        return None
    turn = torch.zeros(len(validation), dtype=torch.int64)
    for label in validation.labels.unique():
        of_class = validation.labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    chosen = torch.from_numpy(np.lexsort((validation.labels.numpy(), turn.numpy()))[:ASKED].copy())
    asked = Features(*(getattr(validation, name)[chosen] for name in ("ids", "labels", "views", "values")))
    found = nearest(train, asked, NEAREST)
    classes, font = plan.splits.train.classes, ImageFont.load_default(size=11)
    step = SIDE + 2 * EDGE + GAP
    size = (GAP + (found.shape[1] + 1) * step + 2 * GAP, 2 * GAP + LINE + len(asked) * (step + LINE))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), "asked", FAINT, font)
    draw.text((3 * GAP + step, GAP), "nearest training images", FAINT, font)
    images = _pixels(plan.splits.train, train.ids[found.flatten()])
    for line, (image, label) in enumerate(zip(_pixels(plan.splits.validation, asked.ids), asked.labels, strict=True)):
        top = GAP + LINE + line * (step + LINE)
        _put(canvas, draw, image, classes[int(label)], (GAP, top), INK, font)
        for column, place in enumerate(found[line].tolist()):
            theirs = int(train.labels[place])
            color = GOOD if theirs == int(label) else BAD
            neighbour = images[line * found.shape[1] + column]
            _put(canvas, draw, neighbour, classes[theirs], (3 * GAP + (column + 1) * step, top), color, font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _pixels(rows: DataSubset, ids: Tensor) -> list[np.ndarray]:
    """uint8 [height, width, channels] of the rows with these ids, in this order."""
    place = {int(row): number for number, row in enumerate(rows.ids.tolist())}
    batch = rows.gather(torch.tensor([place[int(row)] for row in ids.tolist()]))
    return list(batch.inputs.permute(0, 2, 3, 1).contiguous().numpy())


def _put(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: np.ndarray,
    name: str,
    at: tuple[int, int],
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """An image in a square frame, with the name of its class below."""
    tile = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).convert("RGB")
    scale = SIDE / max(tile.size)
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    tile = tile.resize((max(1, round(tile.width * scale)), max(1, round(tile.height * scale))), how)
    left, top = at
    draw.rectangle((left, top, left + SIDE + 2 * EDGE - 1, top + SIDE + 2 * EDGE - 1), outline=color, width=EDGE)
    canvas.paste(tile, (left + EDGE + (SIDE - tile.width) // 2, top + EDGE + (SIDE - tile.height) // 2))
    while font.getlength(name) > SIDE and len(name) > 4:
        name = f"{name[:-2]}…"
    draw.text((left + EDGE, top + SIDE + 2 * EDGE + 2), name, color, font)
