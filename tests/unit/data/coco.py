"""Data sets of boxes on disk, made of digits on a canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.sources.digits_canvas import SIDE, canvases, caption_of

NAMES = [str(number) for number in range(10)]


def write_coco(folder: Path, rows: dict[str, int], *, wide: int = SIDE) -> Path:
    """So many images for each split, with `instances_SPLIT.json`; wider ones have a black stripe at the right."""
    (folder / "images").mkdir(parents=True)
    for split, count in rows.items():
        pixels, boxes = canvases("validation" if split == "val" else "train")
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row in range(count):
            name = f"{split}{row:03}.png"
            Image.fromarray(np.pad(pixels[row], ((0, 0), (0, wide - SIDE)))).save(folder / "images" / name)
            images.append({"id": 10 + row, "file_name": name, "height": SIDE, "width": wide})
            for label, x0, y0, x1, y1, crowd in boxes.row(row).tolist():
                about = {"id": len(annotations) + 1, "image_id": 10 + row, "category_id": int(label) + 1}
                annotations.append({**about, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(crowd)})
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(whole))
    return folder


def write_captions(folder: Path, rows: dict[str, int], *, several: bool = False) -> Path:
    """So many images for each split, with `captions_SPLIT.json`; `several`: two captions of every other image."""
    (folder / "images").mkdir(parents=True)
    for split, count in rows.items():
        pixels, boxes = canvases("validation" if split == "val" else "train")
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row in range(count):
            name = f"{split}{row:03}.png"
            Image.fromarray(pixels[row]).save(folder / "images" / name)
            images.append({"id": 10 + row, "file_name": name, "height": SIDE, "width": SIDE})
            captions = [caption_of(boxes.row(row))]
            if several and row % 2:
                captions.append(f"There are {len(boxes.row(row))} digits.")
            for caption in captions:
                annotations.append({"id": len(annotations) + 1, "image_id": 10 + row, "caption": caption})
        (folder / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder
