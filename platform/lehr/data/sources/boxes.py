"""Rows with boxes: their labels are `lehr.data.labels.Ragged` of [boxes, 6], each box with its class, its sides x0, y0,
x1, y1 in pixels from the upper left corner, and 1 where it is around many things (a crowd), else 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lehr.data.labels import NO_LABEL, Ragged, object_array
from lehr.data.pixels import letterboxed
from lehr.data.sources.base import (
    BOX,
    BoxClassesPart,
    LabelledPart,
    MaskClassesPart,
    Part,
    Source,
    replace_labels,
)
from lehr.data.sources.masks import FORMS as FORMS_OF_MASKS
from lehr.data.sources.masks import MasksPart
from lehr.errors import LehrError
from lehr.tasks.forms import LabelKind


def no_boxes(rows: int) -> Ragged:
    """The labels of rows without any box."""
    return Ragged.of(np.zeros((0, BOX)), np.zeros(rows, np.int64))


@dataclass(frozen=True)
class BoxesPart:
    """Images with the boxes in them.

    Attributes:
        boxes: of every row, in pixels of its image.
        sizes: int64 [rows, 2], height and width of the images; None where they are not known.
        into: the height and width that the images are letterboxed into, whose pixels the boxes then are in.
    """

    part: Part
    boxes: Ragged
    sizes: np.ndarray | None = None
    into: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> Ragged:
        if self.into is None or self.sizes is None:
            return self.boxes
        scale = scales(self.sizes, self.into)[np.repeat(np.arange(self.rows), self.boxes.lengths)]
        values = self.boxes.values.copy()
        values[:, 1:5] *= scale[:, [1, 0, 1, 0]]
        return Ragged(values, self.boxes.starts, self.boxes.known)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        """Raises LehrError for an image of another size than its annotations say: its boxes would be elsewhere."""
        table = self.part.read(rows)
        chosen = np.arange(self.rows) if rows is None else np.asarray(rows, np.int64)
        if self.sizes is not None and "shape" not in table.schema.names:
            self._check_sizes(table, chosen)
        return replace_labels(table, self.labels()[chosen])

    def name(self, row: int) -> str:
        return self.part.name(row)

    def _check_sizes(self, table: pa.Table, rows: np.ndarray) -> None:
        from lehr.data.decode import UnreadableImage, size_of  # which imports sources

        assert self.sizes is not None
        for row, encoded in zip(rows.tolist(), table["image"], strict=True):
            try:
                width, height = size_of(encoded.as_py() or b"")
            except UnreadableImage:
                continue  # which is told when it is decoded
            tall, wide = self.sizes[row].tolist()
            if (width, height) != (wide, tall):
                what = f"has {width} × {height} pixels as it is shown, and its annotations are for {wide} × {tall}"
                why = "its boxes would be in the wrong places; allowed: annotations of these very images"
                raise LehrError(f"data: {self.name(row)} {what}; {why}")


def letterbox(source: Source, size: tuple[int, int]) -> Source:
    """The same rows, with boxes or masks in the pixels of images that are letterboxed into this height and width."""

    def fitted(part: Part) -> Part:
        inner: Any = getattr(part, "part", None)
        if isinstance(part, BoxesPart | MasksPart):
            return replace(part, into=size)
        return replace(part, part=fitted(inner)) if isinstance(part, BoxClassesPart | MaskClassesPart) else part

    return replace(source, parts=tuple(map(fitted, source.parts)))


def scales(sizes: np.ndarray, into: tuple[int, int]) -> np.ndarray:
    """float64 [rows, 2]: what a length along height and width is multiplied by when images of these heights and widths
    [rows, 2] are letterboxed into a size."""
    fitted = [letterboxed((int(width), int(height)), into) for height, width in sizes]
    return np.array([(tall, wide) for wide, tall in fitted], np.float64).reshape(-1, 2) / sizes.reshape(-1, 2)


def present_classes(source: Source) -> Source:
    """The same rows, labelled with the classes of their boxes: int8 [rows, classes], 1 where a row has the class."""

    def of(part: Part) -> Part:
        boxes = part.labels()
        found = np.zeros((part.rows, len(source.classes)), np.int8)
        found[np.repeat(np.arange(part.rows), boxes.lengths), boxes.values[:, 0].astype(np.int64)] = 1
        return LabelledPart(part, found)

    others = {split: present_classes(other) for split, other in source.other_splits.items()}
    return replace(source, parts=tuple(map(of, source.parts)), other_splits=others, kind="classes")


def as_kind(source: Source, kind: LabelKind, *, optional: bool = False) -> Source:
    """As `lehr.data.sources.base.as_kind`, to or from rows with boxes or masks.

    Raises ValueError where rows of the one kind are not rows of the other.
    """
    if "mask" in (source.kind, kind):
        return _as_masks(source, kind, optional=optional)
    if kind == "classes":
        return present_classes(source)
    if kind == "boxes" and (optional or not source.classes):
        parts: tuple[Part, ...] = tuple(BoxesPart(part, no_boxes(part.rows)) for part in source.parts)
        others = {split: as_kind(other, kind, optional=True) for split, other in source.other_splits.items()}
        return replace(source, parts=parts, classes=(), other_splits=others, kind=kind)
    if kind == "boxes":
        what = "its rows have no boxes, which detection learns; allowed: COCO JSON, Pascal VOC or YOLO text"
        raise ValueError(f"{what} (data.source: annotations)")
    if optional:
        parts = tuple(LabelledPart(part, np.full(part.rows, NO_LABEL)) for part in source.parts)
        if kind == "class":
            others = {split: as_kind(other, kind, optional=True) for split, other in source.other_splits.items()}
            return replace(source, parts=parts, classes=(), other_splits=others, kind=kind)
    what = "its rows have boxes; allowed: task: detection, or task: multilabel for the classes of the boxes"
    raise ValueError(what)


def _as_masks(source: Source, kind: LabelKind, *, optional: bool) -> Source:
    """To or from rows with masks, without reading one: as rows without labels."""
    if not optional and not (kind == "mask" and not source.classes):
        if kind == "mask":
            raise ValueError(f"its rows have no masks, which segmentation learns; allowed: {FORMS_OF_MASKS}")
        raise ValueError("its rows have masks, a class for each pixel; allowed: task: segmentation")
    others = {split: _as_masks(other, kind, optional=True) for split, other in source.other_splits.items()}
    nothing = np.zeros((0, 0), np.uint8)
    without: dict[str, Any] = {
        "class": lambda rows: np.full(rows, NO_LABEL),
        "mask": lambda rows: object_array([nothing] * rows),
        "boxes": no_boxes,
    }
    make = without.get(kind, lambda rows: np.zeros((rows, 0)))
    parts = tuple(LabelledPart(part, make(part.rows)) for part in source.parts)
    return replace(source, parts=parts, classes=(), other_splits=others, kind=kind)
