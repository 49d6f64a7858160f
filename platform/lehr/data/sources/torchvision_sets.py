"""`torchvision:NAME`: any classification set of `torchvision.datasets`, downloaded once into a cache folder.

The folder is `data.path`, else `LEHR_CACHE`, else `~/.cache/lehr`; torchvision's own layout lies in it, so files that
are already there are not downloaded again.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lehr.data.sources.base import ErrorFactory, Source
from lehr.job import DataSection
from lehr.paths import packaged_path

ROWS_PER_PART = 1024
# What sets call their splits.
SPLITS = {"train": ("train", "trainval", "training"), "validation": ("val", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class TorchvisionPart:
    """Some items of one split of a set."""

    name_of_set: str
    root: str
    options: tuple[tuple[str, Any], ...]
    items: tuple[int, ...]
    of_items: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.items)

    def labels(self) -> np.ndarray:
        return np.array(self.of_items, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        data = _open(self.name_of_set, self.root, self.options)
        chosen = range(len(self.items)) if rows is None else rows
        images, shapes = [], []
        for row in chosen:
            try:
                image = data[self.items[row]][0]
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
            except (OSError, ValueError):
                pixels = np.empty((0, 0), np.uint8)
            images.append(pixels.tobytes())
            shapes.append([*pixels.shape, 1][:3])
        return pa.table(
            {
                "image": pa.array(images, pa.large_binary()),
                "label": pa.array([self.of_items[row] for row in chosen], pa.int64()),
                "shape": pa.array(shapes, pa.list_(pa.int32())),
            }
        )

    def name(self, row: int) -> str:
        return f"torchvision:{self.name_of_set} item {self.items[row]}"


def cache_folder() -> Path:
    """Where downloaded sets are kept."""
    return Path(os.environ.get("LEHR_CACHE") or "~/.cache/lehr").expanduser().absolute()


def torchvision_set(section: DataSection, refuse: ErrorFactory) -> Source:
    name = section.source.partition(":")[2]
    cls = getattr(_datasets(), name, None)
    if not inspect.isclass(cls) or "root" not in inspect.signature(cls).parameters:
        raise refuse("data.source", f'torchvision.datasets has no image set "{name}" that is kept in a folder')
    root = packaged_path(section.path) if section.path else str(cache_folder())
    found = {}
    for split, options in _splits(cls).items():
        try:
            found[split] = _source(name, root, options)
        except Exception as error:  # every set fails in its own way; what they have in common is the folder
            if split == "train":
                raise refuse("data.source", _missing(name, cls, root, error)) from error
    train = found.pop("train")
    own = {split: source for split, source in found.items() if source.classes == train.classes}
    return Source(f"torchvision:{name}", train.parts, train.classes, own)


def _missing(name: str, cls: type, root: str, error: Exception) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    inside = Path(root, getattr(cls, "base_folder", None) or (name if hasattr(cls, "mirrors") else ""))
    hint = f"{inside}/raw" if hasattr(cls, "mirrors") else str(inside)
    return (
        f"{name} could not be read or downloaded ({cause}); without a network, put its files, as torchvision names "
        f"them, into {hint}, or name another folder with data.path or LEHR_CACHE"
    )


def _datasets() -> Any:
    from lehr.models.vision import torchvision

    return torchvision().datasets


def _splits(cls: type) -> dict[str, tuple[tuple[str, Any], ...]]:
    """The options that open each split of a set."""
    parameters = inspect.signature(cls).parameters
    if "train" in parameters:
        return {"train": (("train", True),), "test": (("train", False),)}
    if "split" in parameters:
        allowed = str(parameters["split"].annotation) + (inspect.getdoc(cls) or "")
        quoted = set(re.findall(r"[\"'`]([a-z]+)[\"'`]", allowed))
        named = {split: next((name for name in names if name in quoted), None) for split, names in SPLITS.items()}
        named["train"] = named["train"] or "train"
        return {split: (("split", name),) for split, name in named.items() if name}
    return {"train": ()}


@lru_cache(maxsize=4)
def _open(name: str, root: str, options: tuple[tuple[str, Any], ...]) -> Any:
    cls = getattr(_datasets(), name)
    download = {"download": True} if "download" in inspect.signature(cls).parameters else {}
    Path(root).mkdir(parents=True, exist_ok=True)
    return cls(root=root, **dict(options), **download)


def _source(name: str, root: str, options: tuple[tuple[str, Any], ...]) -> Source:
    from lehr.data.randomness import key, permutation  # torch; a task that only reads parts does without

    data = _open(name, root, options)
    labels = _labels(data)
    classes = _classes(data, labels)
    # Some sets are sorted by class; in this order every stretch holds all classes.
    order = iter(permutation(key(0, name), len(labels)).tolist())
    parts = []
    while items := tuple(islice(order, ROWS_PER_PART)):
        parts.append(TorchvisionPart(name, root, options, items, tuple(labels[item] for item in items)))
    return Source(f"torchvision:{name}", tuple(parts), classes)


def _labels(data: Any) -> list[int]:
    for attribute in ("targets", "labels", "_labels", "y"):
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data):
            return [int(label) for label in found]
    for attribute in ("samples", "_samples", "imgs"):
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data):
            return [int(sample[1]) for sample in found]
    return [int(data[item][1]) for item in range(len(data))]


def _classes(data: Any, labels: list[int]) -> tuple[str, ...]:
    names = getattr(data, "classes", None)
    if names is None and getattr(data, "class_to_idx", None):
        names = sorted(data.class_to_idx, key=data.class_to_idx.get)
    count = max(labels, default=-1) + 1
    if names is None or len(names) < count:
        return tuple(str(number) for number in range(count))
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)
