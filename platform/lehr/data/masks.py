"""Masks, a class for each pixel: from image files, from polygons and from run lengths. Pure functions.

| stored as | its pixels are |
|---|---|
| PNG and the like with a palette | the numbers of the colours |
| grey, of 1, 8 or 16 bits | the values, from 0 to 255 |
| red, green and blue | those of the colours that a palette names (`read_palette`); equal in all three, the value |
| COCO: polygons, run lengths, compressed or not | drawn, the largest things first, so that small ones stay visible |

255 is not counted. It is what lies beside an image in a letterbox, and a border that Pascal VOC leaves out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.annotations import WrongAnnotations
from lehr.data.pixels import letterboxed
from lehr.tasks.forms import MOST_CLASSES, NOT_COUNTED
from lehr.tasks.mask_arrays import BORDER, Colour, colours, resized

Palette = Mapping[Colour, int]
"""By red, green and blue, the value of a pixel."""
LARGEST = 255


class WrongMask(ValueError):
    """What is wrong with a mask, as the end of a sentence that begins with its name."""


def values_of(image: Image.Image, palette: Palette | None = None) -> np.ndarray:
    """uint8 [height, width]: the values of an opened mask. Raises WrongMask."""
    if image.mode == "P" and palette is not None:
        try:
            return of_colours(np.asarray(image.convert("RGB")), palette)
        except WrongMask:  # its colours are others, so that its numbers count
            return np.asarray(image)
    if image.mode in ("P", "L"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("LA", "La", "PA"):
        return np.asarray(image)[..., 0]
    if image.mode.startswith("I") or image.mode == "F":
        return small_values(np.asarray(image))
    return of_colours(np.asarray(image.convert("RGB")), palette)


def small_values(values: np.ndarray) -> np.ndarray:
    """The same numbers [height, width] as uint8. Raises WrongMask for those that are no classes."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and not bool((values == np.floor(values)).all()):
        raise WrongMask("has values that are no whole numbers; allowed: a class for each pixel, from 0 to 255")
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > LARGEST:
        what = f"has values from {low} to {high}, as masks of single things or depths have"
        raise WrongMask(f"{what}; allowed: a class for each pixel, from 0 to 255")
    return values.astype(np.uint8)


def of_colours(pixels: np.ndarray, palette: Palette | None) -> np.ndarray:
    """uint8 [height, width] of colours [height, width, 3]. Raises WrongMask for a colour that nobody named."""
    if palette is None and bool((pixels == pixels[..., :1]).all()):
        return np.ascontiguousarray(pixels[..., 0])
    flat = pixels.reshape(-1, 3).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    there, inverse = np.unique(flat, return_inverse=True)
    colours = [(int(each) >> 16, int(each) >> 8 & 255, int(each) & 255) for each in there]
    if palette is None:
        some = ", ".join(map(str, colours[:3])) + (", …" if len(colours) > 3 else "")
        what = f"has colours, such as {some}, and nothing says their classes"
        raise WrongMask(f"{what}; allowed: class_dict.csv beside it with lines name,r,g,b, or masks of numbers")
    if odd := [each for each in colours if each not in palette]:
        what = f"has the colour {odd[0]}, which is none of the {len(palette)} of its palette"
        raise WrongMask(f"{what}; allowed: colours that it names, saved without loss (PNG)")
    return np.array([palette[each] for each in colours], np.uint8)[inverse].reshape(pixels.shape[:2])


def letterbox_mask(mask: np.ndarray, into: tuple[int, int]) -> np.ndarray:
    """uint8 [height, width] of a size: as its image lies in a letterbox, by nearest pixels; what is beside it is not
    counted."""
    width, height = letterboxed((mask.shape[1], mask.shape[0]), into)
    found = np.full(into, NOT_COUNTED, np.uint8)
    found[:height, :width] = resized(mask, (height, width))
    return found


# ── what values mean ────────────────────────────────────────────────────────────────────────────────────────────────


def read_palette(text: str) -> tuple[tuple[str, ...], Palette | None]:
    """The names of classes, and their colours where the lines have some, from one of

    * a name a line, the first one of value 0;
    * `name,r,g,b` (CamVid: class_dict.csv), with or without a line of headings;
    * `name:r,g,b:parts:actions` (CVAT: labelmap.txt), or `r g b name`.

    Raises WrongAnnotations for a line that is none of these.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not any(re.search(r"\d+\s*[,\s]\s*\d+\s*[,\s]\s*\d+", line) for line in lines):
        return tuple(lines), None
    names: list[str] = []
    palette: dict[Colour, int] = {}
    for number, line in enumerate(lines):
        found = _line(line)
        if found is None:
            if number == 0:
                continue  # a line of headings
            raise WrongAnnotations(f'line {number + 1} is "{line[:60]}"; allowed: name,r,g,b with numbers up to 255')
        name, colour = found
        if colour in palette:
            raise WrongAnnotations(f"the colour {colour} is there twice; allowed: a colour for each class")
        palette[colour] = len(names)
        names.append(name)
    palette.setdefault(BORDER, NOT_COUNTED)
    return tuple(names), palette


def _line(line: str) -> tuple[str, Colour] | None:
    if match := re.fullmatch(r"([^:]+):\s*(\d+),\s*(\d+),\s*(\d+)(?::.*)?", line):
        name, *values = match.groups()
    elif match := re.fullmatch(r"(\d+)\s+(\d+)\s+(\d+)\s+(.+)", line):
        *values, name = match.groups()
    else:
        cells = next(csv.reader(io.StringIO(line)))
        if len(cells) < 4 or not all(cell.strip().isdecimal() for cell in cells[1:4]):
            return None
        name, *values = cells[:4]
    red, green, blue = map(int, values[:3])
    return (name.strip(), (red, green, blue)) if max(red, green, blue) <= LARGEST else None


def pascal_palette(classes: int) -> dict[Colour, int]:
    """By colour, the values of Pascal VOC's masks."""
    return {BORDER: NOT_COUNTED, **{colour: number for number, colour in enumerate(colours(classes))}}


def table_of(names: int, chosen: Mapping[int, int] | None = None) -> np.ndarray:
    """int16 [256]: the class of each value; −1 of one that is no class. `chosen`: by value, else the values are it."""
    table = np.full(256, -1, np.int16)
    if chosen is None:
        table[:names] = np.arange(names)
    else:
        table[list(chosen)] = list(chosen.values())
    if chosen is None or NOT_COUNTED not in chosen:
        table[NOT_COUNTED] = NOT_COUNTED
    return table


def classes_of(values: np.ndarray, table: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """uint8 [height, width]: the class of each pixel. Raises WrongMask for a value that is none."""
    found = table[values]
    if bool((found < 0).any()):
        odd = int(np.unique(values[found < 0])[0])
        last = int(np.flatnonzero(table[:NOT_COUNTED] >= 0).max(initial=0))
        raise WrongMask(
            f"has the value {odd}; allowed: 0 to {last}, one for each of its {len(names)} classes, and 255 for what is "
            "not counted (names of more classes: a line each in classes.txt)"
        )
    return found.astype(np.uint8)


def names_of_values(there: Sequence[int]) -> tuple[tuple[str, ...], Mapping[int, int]]:
    """The names and the classes of values that nobody named: numbers from 0 to the largest; two values of which the
    larger is 255, or 0 and one other, are `background` and `object`."""
    known = sorted(set(there))
    if known in ([0, LARGEST], [LARGEST]):
        return ("background", "object"), {0: 0, LARGEST: 1}
    counted = [each for each in known if each != NOT_COUNTED]
    if not counted:
        raise WrongMask("has no pixel that counts: all are 255; allowed: a class for each pixel, from 0")
    if counted in ([0, 1], [1]):
        return ("background", "object"), {0: 0, 1: 1}
    if max(counted) >= MOST_CLASSES:
        what = f"has the value {max(counted)}"
        raise WrongMask(f"{what}; allowed: up to {MOST_CLASSES} classes, 0 to {MOST_CLASSES - 1}, and 255")
    if len(counted) <= 2 and counted[0] == 0 and max(counted) > 1:
        return ("background", "object"), {0: 0, max(counted): 1}
    return tuple(map(str, range(max(counted) + 1))), {each: each for each in range(max(counted) + 1)}


# ── COCO ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_shape(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """bool [height, width]: the pixels of one annotation's `segmentation`, polygons or run lengths.

    Raises WrongMask.
    """
    if isinstance(shape, dict):
        return _run_lengths(shape, size)
    if not isinstance(shape, list) or not shape:
        raise WrongMask("has no segmentation; allowed: polygons [[x, y, …], …], or counts and size of run lengths")
    polygons = [shape] if isinstance(shape[0], int | float) else shape
    inside = np.zeros(size, bool)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(type(each) in (int, float) for each in polygon)
        if not numbers or len(polygon) % 2:
            raise WrongMask("has a polygon that is no list of x, y, x, y, …; allowed: an even count of numbers")
        if len(polygon) < 6:
            raise WrongMask(f"has a polygon of {len(polygon) // 2} points; allowed: three or more")
        if not np.isfinite(polygon).all():
            raise WrongMask("has a polygon with a number that is not finite")
        inside |= _filled(np.asarray(polygon, np.float64).reshape(-1, 2), size)
    return inside


def _filled(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [height, width]: the pixels whose middles are inside a polygon; of one that crosses itself, by even and odd.

    Each side of the polygon that crosses the middle of a line of pixels changes all pixels to its right.
    """
    height, width = size
    ends = np.roll(points, -1, axis=0)
    first, last = (np.ceil(fn(points[:, 1], ends[:, 1]) - 0.5).clip(0, height) for fn in (np.minimum, np.maximum))
    counts = (last - first).astype(np.int64)
    side = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts) + first[side].astype(np.int64)
    start, step = points[side], ends[side] - points[side]
    x = start[:, 0] + (row + 0.5 - start[:, 1]) * step[:, 0] / step[:, 1]
    flips = np.zeros((height, width + 1), np.int64)
    np.add.at(flips, (row, np.ceil(x - 0.5).clip(0, width).astype(np.int64)), 1)
    return (flips.cumsum(axis=1)[:, :width] % 2).astype(bool)


def _run_lengths(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    said, counts = shape.get("size"), shape.get("counts")
    height, width = size
    if said != [height, width]:
        what = f"has run lengths of the size {said}, and its image is {height} high and {width} wide"
        raise WrongMask(f"{what}; allowed: size [{height}, {width}]")
    runs = _uncompressed(counts) if isinstance(counts, str | bytes) else counts
    if not isinstance(runs, list) or not all(type(each) is int and each >= 0 for each in runs):
        raise WrongMask("has run lengths that are no whole numbers from 0; allowed: counts as COCO's tools write them")
    if sum(runs) != height * width:
        what = f"has run lengths of {sum(runs):,} pixels in all, and its image has {height * width:,}"
        raise WrongMask(f"{what}; allowed: as many")
    flags = np.arange(len(runs)) % 2 == 1  # columns first, and what is outside begins
    return np.repeat(flags, runs).reshape(width, height).T


def _uncompressed(text: str | bytes) -> list[int]:
    """The counts of COCO's compressed run lengths: five bits a letter, and of each from the third the difference to the
    one two before. Raises WrongMask."""
    letters = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    at = 0
    while at < len(letters):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(letters) or not 48 <= letters[at] < 112 or shift > 40:
                raise WrongMask("has compressed run lengths that are cut off or damaged")
            letter = letters[at] - 48
            value |= (letter & 31) << shift
            more, at, shift = bool(letter & 32), at + 1, shift + 5
            if not more and letter & 16:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def drawn(shapes: Sequence[tuple[int, Any]], size: tuple[int, int]) -> np.ndarray:
    """uint8 [height, width]: 0 where there is nothing, else the class + 1 of the smallest thing there.

    Args:
        shapes: class and segmentation of each thing; a crowd is one, its run lengths are those of its class.
    """
    found = [(label, draw_shape(shape, size)) for label, shape in shapes]
    mask = np.zeros(size, np.uint8)
    for label, inside in sorted(found, key=lambda each: -int(each[1].sum())):
        mask[inside] = label + 1
    return mask
