"""What was understood of a source, in one line."""

from __future__ import annotations

import os

import numpy as np

from lehr.data.sources.base import Source
from lehr.errors import LehrError
from lehr.printing import one_line
from lehr.tasks.caption_text import from_bytes

MOST_CLASSES = 6
"""Names of classes in the line."""


def told(source: Source, path: str) -> str:
    """What was understood, in one line: `train.parquet: Parquet, 1,797 rows, column image (PNG) and label (…)`."""
    where = one_line(path if "://" in path else os.path.basename(path.rstrip("/")) or path)
    rows = count_told(source.rows, "row", "rows")
    if source.other_splits:
        others = "".join(f", {other.rows:,} for {name}" for name, other in source.other_splits.items())
        rows = f"rows: {source.rows:,} to train{others}"
    images, labels = _images_told(source), _labels_told(source)
    if source.columns is None:
        return f"{where}: {source.form or 'image files'}, {rows}, {images}, {labels}"
    return f"{where}: {source.form}, {rows}, columns {source.columns[0]} ({images}) and {source.columns[1]} ({labels})"


def _images_told(source: Source) -> str:
    """The format and the size of the first image."""
    from lehr.data.decode import UnreadableImage, format_of, raw_rows  # needs Pillow

    try:
        image, shape, dtype = next(iter(raw_rows(source.parts[0].read([0]))))
        if shape is not None:
            return f"pixels, {shape[1]} × {shape[0]}, {dtype or 'uint8'}"
        return "unreadable" if image is None else format_of(image)
    except (LehrError, UnreadableImage, StopIteration):
        return "the first cannot be read"


def _labels_told(source: Source) -> str:
    names = [one_line(name) for name in source.classes]
    few = ", ".join(names[:MOST_CLASSES]) + (", …" if len(names) > MOST_CLASSES else "")
    if source.kind == "class":
        return f"{count_told(len(names), 'class', 'classes')}: {few}" if names else "no labels"
    if source.kind == "captions":
        counts = [len(from_bytes(part.labels().row(row))) for part in source.parts for row in range(part.rows)]
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        return f"captions, {each} of each image" if counts else "no captions"
    if source.kind == "numbers":
        values = np.asarray(source.labels(), float)
        span = f", {np.nanmin(values):.4g} to {np.nanmax(values):.4g}" if values.size else ""
        return f"{count_told(len(names), 'number', 'numbers')}: {few}{span}"
    if source.kind == "mask":
        return f"masks of {count_told(len(names), 'class', 'classes')}: {few}" if names else "no masks"
    return f"several of {count_told(len(names), 'class', 'classes')}: {few}"


def count_told(number: int, one: str, several: str = "") -> str:
    """`1 row`, `1,797 rows`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
