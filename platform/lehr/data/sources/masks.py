"""Images with masks, a class for each pixel: the parts that read them, and which value of a mask is which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lehr.data.annotations import WrongAnnotations
from lehr.data.labels import NO_LABEL, Unread, from_column, object_array
from lehr.data.masks import (
    Palette,
    WrongMask,
    classes_of,
    drawn,
    letterbox_mask,
    names_of_values,
    of_colours,
    small_values,
    table_of,
    values_of,
)
from lehr.data.sources.base import Part, Source, replace_labels
from lehr.errors import LehrError
from lehr.tasks.forms import MOST_CLASSES

LOOKED_AT = 200
"""Masks that are looked at for their values, where nothing names their classes."""
COLUMN_NAMES = ("mask", "masks", "mask_path", "mask_file", "segmentation", "segmentation_mask", "semantic")
"""Columns of masks, before `label`, `labels` and the like."""


@dataclass(frozen=True)
class MasksPart:
    """Images with the mask of each, which is read with its image.

    Attributes:
        masks: a part whose images are the masks.
        names: of the classes.
        table: by value, its class, −1 of what is none.
        palette: by colour, its value, of masks in colours.
        into: the height and width that images and masks are letterboxed into; None: masks are as large as their image.
    """

    part: Part
    masks: Part
    names: tuple[str, ...]
    table: tuple[int, ...]
    palette: Palette | None = None
    into: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> Unread:
        return Unread(self.rows, self.into or (1, 1))

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        """Raises LehrError for a mask that cannot be read, of another size than its image, or of other classes."""
        images = self.part.read(rows)
        chosen = list(range(self.rows) if rows is None else rows)
        found = []
        read = read_values(self.masks, chosen, self.palette)
        for row, values, size in zip(chosen, read, _sizes(images), strict=True):
            try:
                if size is not None and values.shape != size:
                    what = f"has {values.shape[1]} × {values.shape[0]} pixels, and its image {size[1]} × {size[0]}"
                    raise WrongMask(f"{what}; allowed: a pixel for each of the image as it is shown")
                mask = classes_of(values, np.array(self.table, np.int16), self.names)
            except WrongMask as error:
                raise LehrError(f"data: the mask {self.masks.name(row)} {error}") from None
            found.append(letterbox_mask(mask, self.into) if self.into else mask)
        masks = np.stack(found) if found and self.into else object_array(found)
        if self.into and not found:
            masks = np.empty((0, *self.into), np.uint8)
        return replace_labels(images, masks)

    def name(self, row: int) -> str:
        return self.part.name(row)


def read_values(masks: Part, rows: Sequence[int], palette: Palette | None) -> list[np.ndarray]:
    """The values of some masks. Raises LehrError for one that is missing or cannot be read."""
    from lehr.data.decode import opened_image, raw_array, raw_rows  # which import sources

    found = []
    for row, (encoded, shape, dtype) in zip(rows, raw_rows(masks.read(rows)), strict=True):
        try:
            if not encoded:
                raise WrongMask("is missing or empty; allowed: a mask for each image")
            if shape is not None:
                array = raw_array(encoded, shape, dtype)
                values = small_values(array[..., 0]) if array.shape[2] == 1 else of_colours(array[..., :3], palette)
            else:
                with opened_image(encoded) as image:
                    image.load()
                    values = values_of(image, palette)
        except ValueError as error:
            if isinstance(error, WrongMask):
                raise LehrError(f"data: the mask {masks.name(row)} {error}") from None
            why = f"cannot be read: {error}; allowed: an image whose values are classes, such as PNG"
            raise LehrError(f"data: the mask {masks.name(row)} {why}") from None
        found.append(values)
    return found


def _sizes(table: pa.Table) -> list[tuple[int, int] | None]:
    """Height and width of each image as it is shown; None of one that cannot be read, which is told elsewhere."""
    from lehr.data.decode import UnreadableImage, raw_rows, size_of

    found: list[tuple[int, int] | None] = []
    for encoded, shape, _ in raw_rows(table):
        try:
            wide, tall = (shape[1], shape[0]) if shape is not None else size_of(encoded or b"")
            found.append((tall, wide))
        except UnreadableImage:
            found.append(None)
    return found


# ── which classes there are ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Classes:
    """What the values of masks mean.

    Attributes:
        names: of the classes. chosen: by value, its class; None: the values are it. palette: by colour, its value.
    """

    names: tuple[str, ...]
    chosen: Mapping[int, int] | None = None
    palette: Palette | None = None

    def part(self, images: Part, masks: Part) -> MasksPart:
        return MasksPart(
            images, masks, self.names, tuple(table_of(len(self.names), self.chosen).tolist()), self.palette
        )


def classes_for(
    masks: Sequence[Part], known: tuple[str, ...], palette: Palette | None, asked: Sequence[str]
) -> Classes:
    """What the values of these masks mean: as the data or the job name them, else by a look at some.

    Raises WrongAnnotations.
    """
    if known:
        return _checked(Classes(known, palette=palette))
    if asked:
        return _checked(Classes(tuple(asked), palette=palette))
    try:
        names, chosen = names_of_values(_values_there(masks, palette))
    except WrongMask as error:
        raise WrongAnnotations(f"the mask {masks[0].name(0)} {error}") from None
    return Classes(names, chosen, palette)


def _checked(classes: Classes) -> Classes:
    if len(classes.names) > MOST_CLASSES:
        raise WrongAnnotations(f"it names {len(classes.names)} classes; allowed: up to {MOST_CLASSES}")
    if twice := [name for name, count in Counter(classes.names).items() if count > 1]:
        raise WrongAnnotations(f"the class {twice[0]} is named twice; allowed: different names")
    return classes


def _values_there(masks: Sequence[Part], palette: Palette | None) -> list[int]:
    """The values of evenly spaced masks."""
    rows = [(part, row) for part in masks for row in range(part.rows)]
    some = rows if len(rows) <= LOOKED_AT else [rows[at] for at in np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int)]
    found: set[int] = set()
    for part in dict.fromkeys(part for part, _ in some):
        chosen = [row for other, row in some if other is part]
        for values in read_values(part, chosen, palette):
            found.update(np.unique(values).tolist())
    return sorted(found)


# ── pairs of files ──────────────────────────────────────────────────────────────────────────────────────────────────


FORMS = "folders images/ and masks/, COCO JSON with segmentations, Parquet or a table with a column mask"


MOST_COUNTED = 500
"""Masks of a split that are read to count the pixels of each class."""


def first_masks(source: Source) -> list[np.ndarray]:
    """uint8 [height, width] of the first masks of a source. Raises LehrError."""
    found: list[np.ndarray] = []
    for part in source.parts:
        rows = range(min(part.rows, MOST_COUNTED - len(found)))
        found += list(from_column(part.read(rows)["label"])) if len(rows) else []
    return found


def mask_column(wanted: Sequence[str], candidates: Sequence[str], there: Sequence[str]) -> str:
    """The column of the masks: the one that the job names, else one that is called so. Raises WrongAnnotations.

    Args:
        candidates: columns that hold images or their files.
    """
    if wanted:
        if wanted[0] not in there:
            raise WrongAnnotations(f"it has no column {wanted[0]}; its columns are {', '.join(there)}")
        return wanted[0]
    usual = (*COLUMN_NAMES, "label", "labels", "annotation", "target", "gt")
    for name in usual:
        if found := next((each for each in candidates if each.lower() == name), None):
            return found
    what = f"it has no column of masks; its columns are {', '.join(there)}"
    raise WrongAnnotations(f"{what}; allowed: a column mask, or type data.columns.label=NAME")


def masked(
    pairs: Sequence[tuple[Part, Part]], known: Sequence[str], asked: Sequence[str]
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Parts of images and of their masks as parts with labels; and the names of the classes, which the data know or
    the job asks for.

    Raises WrongAnnotations, LehrError.
    """
    classes = classes_for([masks for _, masks in pairs], tuple(known), None, asked)
    return tuple(classes.part(*pair) for pair in pairs), classes.names


# ── COCO ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ShapesPart:
    """Masks that are drawn from COCO's polygons and run lengths: 0 where there is nothing, else a class + 1.

    Attributes:
        shapes: of every row, class and segmentation of each thing in it. sizes: of every row, height and width.
        files: what a message names it by.
    """

    shapes: tuple[tuple[tuple[int, Any], ...], ...]
    sizes: tuple[tuple[int, int], ...]
    files: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.files)

    def labels(self) -> np.ndarray:
        return np.full(self.rows, NO_LABEL)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        chosen = range(self.rows) if rows is None else rows
        masks = []
        for row in chosen:
            try:
                masks.append(drawn(self.shapes[row], self.sizes[row]))
            except WrongMask as error:
                raise LehrError(f"data: an annotation of {self.files[row]} {error}") from None
        pixels = pa.array([mask.tobytes() for mask in masks], pa.large_binary())
        return pa.table(
            {"image": pixels, "shape": pa.array([[*mask.shape, 1] for mask in masks], pa.list_(pa.int32()))}
        )

    def name(self, row: int) -> str:
        return f"drawn for {self.files[row]}"
