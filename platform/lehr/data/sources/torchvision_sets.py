"""`torchvision:NAME`: any classification data set of `torchvision.datasets`, downloaded once into a cache folder.

The folder is `data.path`, else `LEHR_CACHE`, else `~/.cache/lehr`. It has torchvision's own layout, so files that are
already there are not downloaded again.
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
from typing import Protocol

import numpy as np
import pyarrow as pa
from PIL import EpsImagePlugin, Image

from lehr import trust
from lehr.data.pixels import PixelFormat, Stored, from_image
from lehr.data.sources.base import ErrorFactory, Source
from lehr.job import DataSection
from lehr.paths import packaged_path

ROWS_PER_PART = 1024
# What torchvision's data sets call their splits.
SPLITS = {"train": ("train", "trainval", "training"), "validation": ("val", "valid"), "test": ("test",)}
Options = tuple[tuple[str, str | bool], ...]
"""The arguments of a data set's constructor that choose a split; hashable."""


class Dataset(Protocol):
    """A map-style classification data set of torchvision. Most have their labels and class names as attributes too."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class TorchvisionPart:
    """Some items of one split of a data set, with the label of each."""

    dataset: str
    root: str
    options: Options
    items: tuple[int, ...]
    item_labels: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.items)

    def labels(self) -> np.ndarray:
        return np.array(self.item_labels, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        data = _open(self.dataset, self.root, self.options)
        EpsImagePlugin.gs_binary = False  # torchvision opens files of every format, and this one starts a program
        rows = range(len(self.items)) if rows is None else rows
        images: list[bytes | None] = []
        shapes: list[list[int] | None] = []
        for row in rows:
            try:
                pixels = _pixels(data[self.items[row]][0])
                images.append(pixels.tobytes())
                shapes.append(list(pixels.shape))
            except MemoryError:
                raise
            except Exception:  # decoders raise all sorts of errors for bytes that are no image
                images.append(b"")
                shapes.append(None)
        return pa.table(
            {
                "image": pa.array(images, pa.large_binary()),
                "label": pa.array([self.item_labels[row] for row in rows], pa.int64()),
                "shape": pa.array(shapes, pa.list_(pa.int32())),
            }
        )

    def name(self, row: int) -> str:
        return f"torchvision:{self.dataset} item {self.items[row]}"


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [height, width, 1 or 3 channels], or 4 with transparency; raises what is not an image of such values."""
    stored = Stored.of(image)
    image.load()
    return from_image(image, stored, PixelFormat(channels=4 if stored.transparent and not stored.grey else None))


def cache_folder() -> Path:
    """Where downloaded data sets are stored by default."""
    return Path(os.environ.get("LEHR_CACHE") or "~/.cache/lehr").expanduser().absolute()


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """The training split of the data set, and its other splits of the same classes. Downloads what is missing.

    Raises:
        Untrusted: with a path that only a run names: some of torchvision's data sets read pickles there.
    """
    trust.check(trust.source(section.source, section.path), "")
    name = section.source.partition(":")[2]
    cls = _class_named(name)
    if cls is None:
        raise job_error("data.source", f'torchvision.datasets has no data set "{name}" that is stored in a folder')
    root = packaged_path(section.path) if section.path else str(cache_folder())
    found = {}
    for split, options in _splits(cls).items():
        try:
            found[split] = _source(name, root, options)
        except Exception as error:  # each data set raises errors of its own
            if split == "train":
                raise job_error("data.source", _missing(name, cls, root, error)) from error
    train = found.pop("train")
    others = {split: source for split, source in found.items() if source.classes == train.classes}
    return Source(f"torchvision:{name}", train.parts, train.classes, others)


def _missing(name: str, cls: type, root: str, error: Exception) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    inside = Path(root, getattr(cls, "base_folder", None) or (name if hasattr(cls, "mirrors") else ""))
    hint = f"{inside}/raw" if hasattr(cls, "mirrors") else str(inside)
    return (
        f"{name} could not be read or downloaded ({cause}); without a network, put its files, named as torchvision "
        f"names them, into {hint}, or set another folder with data.path or LEHR_CACHE"
    )


def _class_named(name: str) -> type | None:
    """The class of `torchvision.datasets` with this name, if its data are stored in a folder."""
    from lehr.models.vision import torchvision

    found = getattr(torchvision().datasets, name, None)
    return found if inspect.isclass(found) and "root" in inspect.signature(found).parameters else None


def _splits(cls: type) -> dict[str, Options]:
    """The options that open each split of a data set."""
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
def _open(name: str, root: str, options: Options) -> Dataset:
    cls = _class_named(name)
    assert cls is not None, "the source was opened before its parts are read"
    download = {"download": True} if "download" in inspect.signature(cls).parameters else {}
    Path(root).mkdir(parents=True, exist_ok=True)
    dataset: Dataset = cls(root=root, **dict(options), **download)
    return dataset


def _source(name: str, root: str, options: Options) -> Source:
    from lehr.data.randomness import key, permutation  # imports torch, which reading a part does without

    dataset = _open(name, root, options)
    labels = _labels(dataset)
    classes = _classes(dataset, labels)
    # Some data sets are sorted by class; in this order every stretch contains all classes.
    order = iter(permutation(key(0, name), len(labels)).tolist())
    parts = []
    while items := tuple(islice(order, ROWS_PER_PART)):
        parts.append(TorchvisionPart(name, root, options, items, tuple(labels[item] for item in items)))
    return Source(f"torchvision:{name}", tuple(parts), classes)


def _labels(dataset: Dataset) -> list[int]:
    for attribute in ("targets", "labels", "_labels", "y"):
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            return [int(label) for label in found]
    for attribute in ("samples", "_samples", "imgs"):
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            return [int(sample[1]) for sample in found]
    return [int(dataset[item][1]) for item in range(len(dataset))]


def _classes(dataset: Dataset, labels: list[int]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    index: dict[str, int] | None = getattr(dataset, "class_to_idx", None)
    if names is None and index:
        names = sorted(index, key=index.__getitem__)
    count = max(labels, default=-1) + 1
    if names is None or len(names) < count:
        return tuple(str(number) for number in range(count))
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)
