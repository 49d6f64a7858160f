"""A picture of nearest neighbours in feature space: which images look alike to the network."""

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

QUERIES, NEIGHBOURS = 8, 6  # query images, and neighbours shown for each
PAPER, INK, FAINT, GOOD, BAD = (252, 252, 250), (34, 34, 34), (120, 120, 118), (47, 125, 79), (192, 54, 54)
SIDE, GAP, EDGE, LINE = 84, 8, 3, 18  # pixels


def nearest_neighbours(train: Features, queries: Features, count: int) -> Tensor:
    """Positions in `train` of the nearest neighbours of each query, by cosine similarity: int64 [queries, count]."""
    similarity = F.normalize(queries.values, dim=1) @ F.normalize(train.values, dim=1).T
    return similarity.topk(min(count, len(train)), dim=1).indices


def neighbours_picture(plan: Plan, train: Features, validation: Features) -> bytes | None:
    """A PNG: each line shows a validation image and its nearest training images, framed by whether the class agrees.

    None if there are no images to show.
    """
    train = train.originals()
    if not len(train) or not len(validation):
        return None
    queries = validation[_one_class_after_the_other(validation.labels)[:QUERIES]]
    neighbours = nearest_neighbours(train, queries, NEIGHBOURS)
    classes, font = plan.splits.train.classes, ImageFont.load_default(size=11)
    step = SIDE + 2 * EDGE + GAP
    size = (GAP + (neighbours.shape[1] + 1) * step + 2 * GAP, 2 * GAP + LINE + len(queries) * (step + LINE))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), "query", FAINT, font)
    draw.text((3 * GAP + step, GAP), "nearest training images", FAINT, font)
    images = _pixels(plan.splits.train, train.ids[neighbours.flatten()])
    query_images = _pixels(plan.splits.validation, queries.ids)
    for line, (image, label) in enumerate(zip(query_images, queries.labels, strict=True)):
        top = GAP + LINE + line * (step + LINE)
        _draw_tile(canvas, draw, image, classes[int(label)], (GAP, top), INK, font)
        for column, position in enumerate(neighbours[line].tolist()):
            neighbour_label = int(train.labels[position])
            color = GOOD if neighbour_label == int(label) else BAD
            neighbour = images[line * neighbours.shape[1] + column]
            left = 3 * GAP + (column + 1) * step
            _draw_tile(canvas, draw, neighbour, classes[neighbour_label], (left, top), color, font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _one_class_after_the_other(labels: Tensor) -> Tensor:
    """Positions ordered so that the first row of every class comes first, then the second of every class, and so on."""
    turn = torch.zeros(len(labels), dtype=torch.int64)
    for label in labels.unique():
        of_class = labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    return torch.from_numpy(np.lexsort((labels.numpy(), turn.numpy())))


def _pixels(rows: DataSubset, ids: Tensor) -> list[np.ndarray]:
    """uint8 [height, width, channels] of the rows with these ids, in this order."""
    position = {int(row): number for number, row in enumerate(rows.ids.tolist())}
    batch = rows.gather(torch.tensor([position[int(row)] for row in ids.tolist()]))
    return list(batch.inputs.permute(0, 2, 3, 1).contiguous().numpy())


def _draw_tile(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: np.ndarray,
    name: str,
    at: tuple[int, int],
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draws an image in a square frame, with the name of its class below."""
    tile = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).convert("RGB")
    scale = SIDE / max(tile.size)
    resampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    tile = tile.resize((max(1, round(tile.width * scale)), max(1, round(tile.height * scale))), resampling)
    left, top = at
    draw.rectangle((left, top, left + SIDE + 2 * EDGE - 1, top + SIDE + 2 * EDGE - 1), outline=color, width=EDGE)
    canvas.paste(tile, (left + EDGE + (SIDE - tile.width) // 2, top + EDGE + (SIDE - tile.height) // 2))
    while font.getlength(name) > SIDE and len(name) > 4:
        name = f"{name[:-2]}…"
    draw.text((left + EDGE, top + SIDE + 2 * EDGE + 2), name, color, font)
