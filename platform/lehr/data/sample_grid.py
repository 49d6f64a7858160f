"""A grid of samples: images of each class, unchanged and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.dataset import Batch, BatchSampler, DataSubset
from lehr.output import marked

BACKGROUND, TEXT, FAINT = (252, 252, 250), (34, 34, 34), (120, 120, 118)
MARGIN, GAP, HEADER = 16, 4, 40  # pixels


def draw_sample_grid(rows: DataSubset, augment: Augment, counts: Sequence[int], epochs: int, target: Path) -> None:
    """Draws one line per class: its name and count, its samples unchanged, and the same augmented in the first epochs.

    Args:
        rows: the samples.
        augment: the job's augmentations.
        counts: number of rows of each class in the whole source.
        epochs: the number of augmented versions to show.
        target: the PNG file to write; its folder is created.
    """
    _, height, width = rows.shape
    scale = 160 / max(height, width) if max(height, width) > 160 else max(1, round(64 / max(height, width)))
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    versions = [_pixels(rows.gather(torch.arange(len(rows))))]
    one_batch = BatchSampler(len(rows), len(rows), 0, lambda key: torch.arange(len(rows)))
    versions += [_pixels(next(batches(rows, one_batch, augment, epoch))) for epoch in range(epochs)]
    lines = [(label, (rows.labels == label).nonzero().flatten().tolist()) for label in range(len(rows.classes))]
    lines = [(label, samples) for label, samples in lines if samples]

    font, small = (ImageFont.load_default(size) for size in (15, 12))
    left = int(MARGIN + max(font.getlength(rows.classes[label]) for label, _ in lines) + 24)
    block = max(len(samples) for _, samples in lines) * (wide + GAP) + MARGIN
    size = (left + len(versions) * block, HEADER + len(lines) * (tall + 3 * GAP) + MARGIN)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number in range(len(versions)):
        title = "unchanged" if number == 0 else f"augmented, epoch {number}"
        draw.text((left + number * block, MARGIN), title, FAINT, small)
    for line, (label, samples) in enumerate(lines):
        top = HEADER + line * (tall + 3 * GAP)
        draw.text((MARGIN, top), rows.classes[label], TEXT, font)
        draw.text((MARGIN, top + 20), f"{counts[label]:,}", FAINT, small)
        for number, version in enumerate(versions):
            for column, sample in enumerate(samples):
                tile = Image.fromarray(version[sample].squeeze(-1) if rows.shape[0] == 1 else version[sample])
                how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
                corner = (left + number * block + column * (wide + GAP), top)
                canvas.paste(tile.convert("RGB").resize((wide, tall), how), corner)
    target.parent.mkdir(parents=True, exist_ok=True)
    with BytesIO() as file:
        canvas.save(file, "PNG")
        target.write_bytes(marked(file.getvalue()))


def _pixels(batch: Batch) -> np.ndarray:
    """uint8 [rows, height, width, channels]."""
    return batch.inputs.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
