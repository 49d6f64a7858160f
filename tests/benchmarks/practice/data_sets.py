"""Data sets of the cases: photographs, scans, drawings and textures, as arrays. Some are for development only."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

import lehr.data
from tests.benchmarks.cifar import FOLDER, TRAIN

SIDE = 16
CELLS = FOLDER / "bccd"


@dataclass(frozen=True)
class Rows:
    """Some images with their classes.

    Attributes:
        images: uint8 [rows, SIDE, SIDE, channels].
        labels: int64 [rows].
        classes: names, in the order of the labels.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Rows:
        """These rows, in this order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def _resized(image: Image.Image, mode: str) -> np.ndarray:
    small = np.asarray(image.convert(mode).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return small[:, :, None] if small.ndim == 2 else small


def _from_parquet(path: Path, mode: str, most: int) -> Rows:
    file = pq.ParquetFile(path)
    table = file.read(columns=["image", "label"]).slice(0, most)
    images = [_resized(Image.open(io.BytesIO(each or b"")), mode) for each in table["image"].to_pylist()]
    classes = (file.schema_arrow.metadata or {})[b"classes"].decode().split(",")
    return Rows(np.stack(images), table["label"].to_numpy().astype(np.int64), tuple(classes))


def _digits() -> Rows:
    return _from_parquet(Path(lehr.data.__file__).with_name("digits.parquet"), "L", 1797)


def _cifar() -> Rows:
    return _from_parquet(TRAIN, "RGB", 6000)


def _cells() -> Rows:
    """Crops of the boxes of blood cells: red, white, platelets."""
    images, labels, names = [], [], ("Platelets", "RBC", "WBC")
    for split in ("train", "val"):
        content = json.loads((CELLS / f"instances_{split}.json").read_text())
        kinds = {each["id"]: each["name"] for each in content["categories"]}
        files = {each["id"]: each["file_name"] for each in content["images"]}
        opened: dict[int, Image.Image] = {}
        for box in content["annotations"]:
            x, y, width, height = box["bbox"]
            if min(width, height) >= 8:
                whole = opened.setdefault(box["image_id"], Image.open(CELLS / "JPEGImages" / files[box["image_id"]]))
                images.append(_resized(whole.crop((x, y, x + width, y + height)), "RGB"))
                labels.append(names.index(kinds[box["category_id"]]))
    return Rows(np.stack(images), np.array(labels, np.int64), names)


def _shapes(rows: int = 3000) -> Rows:
    """Drawings of six shapes with random size, place, colours and noise; a network must learn form, not colour."""
    draw = np.random.default_rng(20)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    labels = draw.integers(0, 6, rows)
    images = np.empty((rows, SIDE, SIDE, 3), np.uint8)
    for row, label in enumerate(labels):
        r, cx, cy = draw.uniform(3, 6), *draw.uniform(5, SIDE - 6, 2)
        dx, dy = x - cx, y - cy
        inside = (
            (
                dx**2 + dy**2 < r**2,
                (abs(dx) < r * 0.85) & (abs(dy) < r * 0.85),
                abs(dx) + abs(dy) < r * 1.1,
                (abs(dx) < r / 3) | (abs(dy) < r / 3),
                (dx**2 + dy**2 < r**2) & (dx**2 + dy**2 > (0.6 * r) ** 2),
                (dy > -r) & (dy < r) & (abs(dx) < (dy + r) / 2),
            )[label]
            & (abs(dx) < r + 1)
            & (abs(dy) < r + 1)
        )
        back, front = draw.uniform(0, 255, (2, 3))
        image = np.where(inside[:, :, None], front, back) + draw.normal(0, 18, (SIDE, SIDE, 3))
        images[row] = image.clip(0, 255)
    return Rows(images, labels, ("circle", "square", "diamond", "cross", "ring", "triangle"))


def _textures(rows: int = 2400) -> Rows:
    """Grey gratings of four orientations and two frequencies under strong noise."""
    draw = np.random.default_rng(21)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    labels = draw.integers(0, 8, rows)
    angle, wave = (labels % 4) * np.pi / 4, np.where(labels < 4, 0.7, 1.5)
    phase = draw.uniform(0, 2 * np.pi, rows)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    pattern = np.sin(wave[:, None, None] * along + phase[:, None, None])
    noisy = 128 + 45 * pattern + draw.normal(0, 45, pattern.shape)
    return Rows(noisy.clip(0, 255).astype(np.uint8)[..., None], labels, tuple("abcdefgh"))


def _pets() -> Rows:
    """Photographs of cats and dogs, which are hard to tell apart at this size; none of the rows of `cifar`."""
    rows = _from_parquet(TRAIN, "RGB", 30_000)
    rows = rows.take(np.arange(6000, len(rows)))
    cat, dog = rows.classes.index("cat"), rows.classes.index("dog")
    some = rows.take(np.flatnonzero((rows.labels == cat) | (rows.labels == dog)))
    return Rows(some.images, (some.labels == dog).astype(np.int64), ("cat", "dog"))


def _glyphs(rows: int = 3000) -> Rows:
    """Printed letters, turned, moved and scaled, in grey under noise."""
    draw, letters = np.random.default_rng(22), "ABCEFGHKMNRS"
    labels = draw.integers(0, len(letters), rows)
    images = np.empty((rows, SIDE, SIDE, 1), np.uint8)
    for row, label in enumerate(labels):
        page = Image.new("L", (48, 48), 0)
        size, x, y = int(draw.integers(22, 38)), *draw.normal(24, 3, 2)
        ImageDraw.Draw(page).text((x, y), letters[label], 255, ImageFont.load_default(size), anchor="mm")
        small = _resized(page.rotate(float(draw.uniform(-25, 25))), "L").astype(float)
        images[row] = (small * draw.uniform(0.4, 0.9) + draw.normal(30, 20, small.shape)).clip(0, 255)
    return Rows(images, labels, tuple(letters))


def _counts(rows: int = 2500) -> Rows:
    """One to five spots, which may touch: the class is how many."""
    draw = np.random.default_rng(23)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    labels = draw.integers(0, 5, rows)
    images = np.empty((rows, SIDE, SIDE, 1), np.uint8)
    for row, label in enumerate(labels):
        places = draw.uniform(2, SIDE - 2, (label + 1, 2))
        spots = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2.5) for px, py in places]
        images[row] = (200 * np.max(spots, axis=0) + draw.normal(25, 15, x.shape)).clip(0, 255)[..., None]
    return Rows(images, labels, ("one", "two", "three", "four", "five"))


def _faint(rows: int = 2000) -> Rows:
    """A faint pattern of each class below strong noise: even the best network is wrong on many rows."""
    draw = np.random.default_rng(24)
    labels = draw.integers(0, 6, rows)
    patterns = draw.normal(0, 1, (6, SIDE // 2, SIDE // 2, 3)).repeat(2, axis=1).repeat(2, axis=2)
    noisy = 128 + 4.5 * patterns[labels] + draw.normal(0, 45, (rows, SIDE, SIDE, 3))
    return Rows(noisy.clip(0, 255).astype(np.uint8), labels, tuple("uvwxyz"))


def _sides(rows: int = 2500) -> Rows:
    """Where the bright spot is, of four sides: easy, and soon learned."""
    draw = np.random.default_rng(25)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    labels = draw.integers(0, 4, rows)
    along, across = draw.uniform(3, SIDE - 4, rows), draw.uniform(2, 5, rows)
    across = np.where(labels % 2 == 1, SIDE - 1 - across, across)
    px, py = np.where(labels < 2, across, along), np.where(labels < 2, along, across)
    spots = 120 * np.exp(-((x - px[:, None, None]) ** 2 + (y - py[:, None, None]) ** 2) / 6)
    noisy = 70 + spots + draw.normal(0, 30, spots.shape)
    return Rows(noisy.clip(0, 255).astype(np.uint8)[..., None], labels, ("left", "right", "top", "bottom"))


LOADERS: dict[str, Callable[[], Rows]] = {
    "digits": _digits,
    "cifar": _cifar,
    "cells": _cells,
    "shapes": _shapes,
    "textures": _textures,
}
"""Those of reports, and of development with other faults."""
FOR_DEVELOPMENT: dict[str, Callable[[], Rows]] = {
    "pets": _pets,
    "glyphs": _glyphs,
    "counts": _counts,
    "faint": _faint,
    "sides": _sides,
}
"""Those that no report has, with every fault that may be looked at."""


@cache
def load(name: str) -> Rows:
    """All rows of a data set."""
    return (LOADERS | FOR_DEVELOPMENT)[name]()


def available(loaders: Iterable[str] = LOADERS) -> list[str]:
    """The data sets that this machine has, of these."""
    missing = {"cifar": not TRAIN.exists(), "pets": not TRAIN.exists(), "cells": not CELLS.exists()}
    return [name for name in loaders if not missing.get(name)]


def draw_rows(rows: Rows, count: int, draw: Generator, rarest: float = 1.0) -> np.ndarray:
    """`count` rows, as many of each class as there are; all of a class that has fewer.

    Args:
        rarest: rows of the rarest class as a share of those of the most frequent one; the others lie between.
    """
    order = draw.permutation(len(rows))
    by_class = [order[rows.labels[order] == label] for label in draw.permutation(len(rows.classes))]
    shares = np.linspace(1.0, rarest, len(by_class))
    each = [max(2, int(share * count / shares.sum())) for share in shares]
    return draw.permutation(np.concatenate([some[:most] for some, most in zip(by_class, each, strict=True)]))


def with_noise(rows: Rows, deviation: float, draw: Generator) -> Rows:
    """The rows with normal noise of this standard deviation, in levels of 256, on every pixel."""
    noisy = rows.images + draw.normal(0, deviation, rows.images.shape)
    return replace(rows, images=noisy.clip(0, 255).astype(np.uint8))


def to_parquet(rows: Rows, path: Path) -> None:
    """Writes them as PNG images, in the form of the source `parquet`."""
    import pyarrow as pa

    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    table = pa.table({"image": pa.array(map(png, rows.images), pa.binary()), "label": pa.array(rows.labels)})
    pq.write_table(table.replace_schema_metadata({b"classes": ",".join(rows.classes).encode()}), path)
