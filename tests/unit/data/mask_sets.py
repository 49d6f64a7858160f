"""Data sets of masks on disk, made of digits on a canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.sources.digits_canvas import SIDE, canvas_masks, canvases

NAMES = ("background", *map(str, range(10)))


def drawn(split: str, wide: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [rows, side, wide]: images and masks; wider ones have a black stripe of background at the right."""
    found = canvases(split)[0], canvas_masks(split)
    return tuple(np.pad(each, ((0, 0), (0, 0), (0, wide - SIDE))) for each in found)  # type: ignore[return-value]


def write_pairs(folder: Path, rows: dict[str, int], *, wide: int = SIDE) -> Path:
    """`images/SPLIT/` and `masks/SPLIT/` with so many pairs, and `classes.txt`."""
    for split, count in rows.items():
        images, masks = drawn("validation" if split == "val" else "train", wide)
        for name, found in (("images", images), ("masks", masks)):
            (folder / name / split).mkdir(parents=True)
            for row in range(count):
                Image.fromarray(found[row]).save(folder / name / split / f"{row:03}.png")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def save(path: Path, pixels: Any, mode: str | None = None) -> None:
    """An image file, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path)


def write_shapes(path: Path, shapes: list[Any], size: tuple[int, int] = (8, 10)) -> None:
    """A COCO JSON of one image `a.png` with these segmentations, all of the class `cell`."""
    save(path.parent / "a.png", np.zeros(size, np.uint8))
    each = [
        {"id": k, "image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 2], "segmentation": shape, "iscrowd": 0}
        for k, shape in enumerate(shapes)
    ]
    image = {"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}
    whole = {"images": [image], "annotations": each, "categories": [{"id": 3, "name": "cell"}]}
    path.write_text(json.dumps(whole))
