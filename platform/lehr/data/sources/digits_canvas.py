"""Digits scattered over a canvas, with boxes, masks or captions: 1,500 grey images of 64 × 64 pixels, each with one to
four of the bundled digits.

Each image is a function of (seed, row) alone. Training images show other digits than those for validation: the scans
themselves are split. Digits are up to three times as large as they were scanned, and never touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
from PIL import Image

from lehr.data.captions import as_labels
from lehr.data.labels import Ragged
from lehr.data.sources.base import ErrorFactory, LabelledPart, Source, replace_labels
from lehr.data.sources.boxes import BoxesPart
from lehr.data.sources.digits import open_source as open_digits
from lehr.data.sources.masks import Classes
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

SIDE, MOST, ROWS = 64, 4, {"train": 1200, "validation": 300}
SCALES = 1.25, 3.0
SEED = 27
INK = 64
"""A pixel brighter than this is one of its digit."""
_TRIES, _APART = 30, 1


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind = "boxes") -> Source:
    digits = open_digits(section, job_error)
    classes = Classes(("background", *digits.classes))

    def split(name: str) -> Source:
        rows = ROWS[name]
        if kind == "captions":
            said = LabelledPart(CanvasPart(name), as_labels([[caption_of(each)] for each in _boxes_of(name)]))
            return Source("digits_canvas", (said,), (), kind="captions")
        if kind == "mask":
            masked = classes.part(CanvasPart(name), CanvasPart(name, masks=True))
            return Source("digits_canvas", (masked,), classes.names, kind="mask")
        part = BoxesPart(CanvasPart(name), canvases(name)[1], np.full((rows, 2), SIDE, np.int64))
        return Source("digits_canvas", (part,), digits.classes, kind="boxes")

    train = split("train")
    return replace(train, other_splits={"validation": split("validation")})


@dataclass(frozen=True)
class CanvasPart:
    """The images of a split, or their masks, which are made where they are needed."""

    split: str
    masks: bool = False

    @property
    def rows(self) -> int:
        return ROWS[self.split]

    def labels(self) -> Ragged:
        return canvases(self.split)[1]

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        images, labels = canvases(self.split)
        images = canvas_masks(self.split) if self.masks else images
        chosen = np.arange(self.rows) if rows is None else np.asarray(rows, np.int64)
        shape = pa.array([[SIDE, SIDE, 1]] * len(chosen), pa.list_(pa.int32()))
        pixels = pa.array([images[row].tobytes() for row in chosen], pa.binary())
        return replace_labels(pa.table({"image": pixels, "shape": shape}), labels[chosen])

    def name(self, row: int) -> str:
        return f"{'mask' if self.masks else 'canvas'} {row} of digits_canvas, {self.split}"


def canvases(split: str) -> tuple[np.ndarray, Ragged]:
    """uint8 [rows, side, side] and the boxes in them."""
    return drawn(split)[:2]


def canvas_masks(split: str) -> np.ndarray:
    """uint8 [rows, side, side]: a digit + 1 where it is, else 0."""
    return drawn(split)[2]


@lru_cache(maxsize=2)
def drawn(split: str) -> tuple[np.ndarray, Ragged, np.ndarray]:
    scans, labels = _scans()
    shuffled = np.random.default_rng(SEED).permutation(len(scans))
    usable = shuffled[: len(scans) // 5] if split == "validation" else shuffled[len(scans) // 5 :]
    made = [canvas(split, row, scans, labels, usable) for row in range(ROWS[split])]
    images, boxes, masks = zip(*made, strict=True)
    return np.stack(images), Ragged.of(np.concatenate(boxes), [len(each) for each in boxes]), np.stack(masks)


def canvas(
    split: str, row: int, scans: np.ndarray, labels: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image, uint8 [side, side], its boxes, float64 [boxes, 6], and its mask, uint8 [side, side]."""
    random = np.random.default_rng([SEED, list(ROWS).index(split), row])
    image = random.integers(0, 48, (SIDE, SIDE), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[tuple[float, ...]] = []
    for which in random.choice(usable, random.integers(1, MOST + 1), replace=False):
        side = round(8 * random.uniform(*SCALES))
        digit = np.asarray(Image.fromarray(scans[which]).resize((side, side), Image.Resampling.BILINEAR))
        rows, columns = (np.flatnonzero((digit > INK).any(axis=axis)) for axis in (1, 0))
        for _ in range(_TRIES):
            top, left = random.integers(0, SIDE - side + 1, 2).tolist()
            x0, y0 = left + int(columns[0]), top + int(rows[0])
            x1, y1 = left + int(columns[-1]) + 1, top + int(rows[-1]) + 1
            if all(x1 + _APART < b[1] or b[3] + _APART < x0 or y1 + _APART < b[2] or b[4] + _APART < y0 for b in boxes):
                there = image[top : top + side, left : left + side]
                np.maximum(there, digit, out=there)
                mask[top : top + side, left : left + side][digit > INK] = labels[which] + 1
                boxes.append((float(labels[which]), x0, y0, x1, y1, 0.0))
                break
    return image, np.array(boxes, np.float64).reshape(-1, 6), mask


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _boxes_of(split: str) -> Iterator[np.ndarray]:
    boxes = canvases(split)[1]
    return (boxes.row(row) for row in range(len(boxes)))


def caption_of(boxes: np.ndarray) -> str:
    """`a seven left of a three above an eight`: the digits from left to right, and how each lies to the next, by their
    middles."""
    middles = (boxes[:, 1:3] + boxes[:, 3:5]) / 2
    order = np.argsort(middles[:, 0], kind="stable")
    words: list[str] = []
    for at, which in enumerate(order):
        name = _NUMBERS[int(boxes[which, 0])]
        words.append(f"{'an' if name == 'eight' else 'a'} {name}")
        if at + 1 < len(order):
            across, down = middles[order[at + 1]] - middles[which]
            words.append("left of" if across >= abs(down) else "above" if down > 0 else "below")
    return " ".join(words)


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [digits, 8, 8] from 0 to 255, and the digit of each."""
    from lehr.data.decode import decode  # which imports sources
    from lehr.data.pixels import PixelFormat

    digits = open_digits(DataSection(), lambda field, what: ValueError(what))  # type: ignore[arg-type, return-value]
    found = decode(digits.parts[0].read(), PixelFormat(channels=1))
    assert isinstance(found.labels, np.ndarray)
    return found.pixels[..., 0], found.labels
