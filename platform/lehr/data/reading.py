"""Decoding the parts of a source into memory, with the checks that every way of reading shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain

import numpy as np
import pyarrow as pa

from lehr.data.dataset import Images
from lehr.data.decode import Decoded, UnreadableImage, decode, different_sizes, is_decoded_smaller, raw_rows, stored_as
from lehr.data.labels import Labels, Ragged, concatenate, is_masks, without_label
from lehr.data.pixels import PixelFormat, Stored
from lehr.data.sources.base import Source
from lehr.errors import LehrError

Read = Callable[[Source, PixelFormat, float], Images]

FIRST_ROWS = 64
"""Images that are looked at before all are read."""


def read(source: Source, wanted: PixelFormat, skip: float = 0.0) -> Images:
    """Decodes a whole source in this process. `skip` is the share of images that may be unreadable, 0 to 1."""
    return assemble(((number, decode(part.read(), wanted)) for number, part in enumerate(source.parts)), source, skip)


def assemble(pieces: Iterable[tuple[int, Decoded]], source: Source, skip: float) -> Images:
    """One contiguous array per column from the decoded parts of a source, each with its number, in any order.

    Each piece is copied into place and can then be freed, so that memory holds the whole set only once.

    Raises:
        LehrError: images of different sizes, too many unreadable ones, no rows, or a label outside the classes.
    """
    if not source.rows:
        raise LehrError(f"data: {source.name} has no rows")
    starts = source.starts
    pixels, found = np.zeros((source.rows, 0, 0, 1), np.uint8), dict[int, Labels]()
    unreadable: list[tuple[int, str]] = []
    for number, piece in pieces:
        start, end = starts[number], starts[number + 1]
        found[number] = piece.labels
        unreadable += [(int(start) + row, why) for row, why in piece.unreadable]
        if len(piece.unreadable) == len(piece.labels):
            continue
        if not pixels.size:
            pixels = np.zeros((source.rows, *piece.pixels.shape[1:]), np.uint8)
        if piece.pixels.shape[1:3] != pixels.shape[1:3]:
            raise different_sizes({pixels.shape[1:3], piece.pixels.shape[1:3]})
        if piece.pixels.shape[3] > pixels.shape[3]:  # without channels wanted: the first coloured one after grey ones
            pixels = np.repeat(pixels, piece.pixels.shape[3], axis=3)
        pixels[start:end] = piece.pixels
    labels = concatenate([found[number] for number in sorted(found)])
    check_labels(labels, source)
    check_unreadable(dict(sorted(unreadable)), source, skip)
    return Images(pixels, labels, source.classes, tuple(sorted(row for row, _ in unreadable)), source.groups)


def small_labels(source: Source) -> Labels:
    """The label of every row, of one class each in the smallest type of integers that holds them.

    Raises LehrError as `check_labels` does.
    """
    kind = np.min_scalar_type(-max(1, len(source.classes)))
    found, start = np.empty(source.rows if source.kind == "class" else 0, kind), 0
    for part in source.parts if source.kind == "class" else ():
        labels = part.labels()
        end = start + len(labels)
        found[start:end] = labels
        if not np.array_equal(found[start:end], labels) or (labels < 0).any() or (labels >= len(source.classes)).any():
            break
        start = end
    if len(found) and start == len(found):
        return found
    labels = source.labels()
    check_labels(labels, source)
    return labels


def check_labels(labels: Labels, source: Source) -> None:
    """Raises LehrError for a label that is missing (see `lehr.data.labels.NO_LABEL`), outside the classes, or no
    finite number."""
    if len(missing := np.flatnonzero(without_label(labels))):
        raise LehrError(
            f"data: {source.name_of(int(missing[0]))} has no label (null), and so have {len(missing)} of "
            f"{len(labels)} rows; allowed: a label in every row, or the rows without one left out of the files"
        )
    if isinstance(labels, Ragged) or is_masks(labels):
        return
    if labels.ndim > 1:
        if len(odd := np.flatnonzero(~np.isfinite(labels).all(axis=1))):
            what = f"data: {source.name_of(int(odd[0]))} has a label that is no finite number"
            raise LehrError(f"{what}, and so have {len(odd)} of {len(labels)} rows; allowed: finite numbers")
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= len(source.classes)))
    if len(wrong):
        raise LehrError(
            f"data: row {wrong[0]} of {source.name} has label {labels[wrong[0]]}; "
            f"allowed: 0 to {len(source.classes) - 1}, one for each of its {len(source.classes)} classes"
        )


def check_unreadable(unreadable: Mapping[int, str], source: Source, skip: float, show: int = 5) -> None:
    """Raises LehrError, naming them, when more images are unreadable than may be skipped."""
    if len(unreadable) <= skip * source.rows:
        return
    names = [f"{source.name_of(row)} ({why})" for row, why in list(unreadable.items())[:show]]
    more = f" and {len(unreadable) - show} more" if len(unreadable) > show else ""
    raise LehrError(
        f"data: {len(unreadable)} of {source.rows} images are unreadable, more than data.skip_unreadable allows "
        f"({skip:.4g} of all): {', '.join(names)}{more}"
    )


def probe(source: Source, wanted: PixelFormat, rows: int = FIRST_ROWS) -> tuple[int, int, int]:
    """(height, width, channels) of the images, taken from the first few.

    Raises:
        LehrError: none of them can be read, or they differ in size and no size to resize to was given.
    """
    part = source.parts[0]
    first = decode(part.read(range(min(rows, part.rows))), wanted)
    if len(first.unreadable) == len(first.labels):
        raise LehrError(f"data: {part.name(0)} and what follows cannot be read: {first.unreadable[0][1]}")
    height, width, channels = first.pixels.shape[1:]
    return height, width, channels


def has_colour(source: Source) -> bool:
    """Whether any image is in colour. It reads no further than to the first that is, and decodes none."""
    first = (part.read(range(1)) for part in source.parts[:1])  # most sets end here
    tables = chain(first, (part.read() for part in source.parts))
    return any(not stored.grey for table in tables for stored in _stored(table, grey_png=False))


def first_stored(source: Source, rows: int = FIRST_ROWS) -> list[Stored]:
    """How the first few images that can be read are stored."""
    part = source.parts[0]
    return list(_stored(part.read(range(min(rows, part.rows)))))


def any_decoded_smaller(source: Source, wanted: PixelFormat, rows: int = FIRST_ROWS) -> bool:
    """Whether any of the first few images is decoded to fewer pixels than it has (`data.decode: scaled`)."""
    part = source.parts[0]
    for image, shape, _ in raw_rows(part.read(range(min(rows, part.rows)))):
        with suppress(UnreadableImage):
            if shape is None and image is not None and is_decoded_smaller(image, wanted):
                return True
    return False


def _stored(table: pa.Table, *, grey_png: bool = True) -> Iterator[Stored]:
    """How each image of a part's table that can be read is stored; without grey PNG files, which are soon known."""
    for image, shape, dtype in raw_rows(table):
        if shape is not None:
            yield Stored(shape[2] == 1, 8 * np.dtype(dtype or np.uint8).itemsize, transparent=shape[2] == 4)
        elif image is not None and (grey_png or not _is_grey_png(image)):
            with suppress(UnreadableImage):
                yield stored_as(image)


def _is_grey_png(encoded: bytes) -> bool:
    """Whether it begins as a PNG file whose colour type is grey, or grey with transparency. Pillow takes longer."""
    return encoded[:8] == b"\x89PNG\r\n\x1a\n" and encoded[12:16] == b"IHDR" and encoded[25:26] in (b"\0", b"\4")
