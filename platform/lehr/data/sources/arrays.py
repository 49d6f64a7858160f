"""NumPy arrays: `.npz` files with images and labels of each split, or a `.npy` file of images beside one of labels.

| what | names |
|---|---|
| images | `x`, `image`, `images`, `img`, `imgs`, `data`, `features` |
| labels | `y`, `label`, `labels`, `target`, `targets` |
| split, before or after it | `train`, `val`, `test` and what they are called as well: `x_train`, `test_images` |

Images are [rows, height, width], with channels last or first, or the flat pixels of square grey ones. Labels are a
class each; one-hot rows count as that. On a disk, arrays that are not compressed are mapped, not read. Nothing is
unpickled: arrays of objects are refused.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from pyarrow.fs import FileType, LocalFileSystem

from lehr.data.sources.base import ErrorFactory, LabelledPart, Source, file_system, join_path, read_with_retries
from lehr.data.sources.image_columns import as_picture, of_arrays
from lehr.data.sources.label_columns import WrongLabels, read_columns
from lehr.data.sources.listing import kind_of, list_folder, shown
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.splits import split_of
from lehr.data.sources.tabular import Wanted, in_splits
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

ROWS = 512
"""In a part."""
IMAGES = ("x", "image", "images", "img", "imgs", "data", "features", "pixels")
LABELS = ("y", "label", "labels", "target", "targets", "cls", "classes")
ENDINGS = (".npz", ".npy")
MOST_RATIO = 1100  # of what zlib can shrink


@dataclass(frozen=True)
class Stored:
    """An array in a file.

    Attributes:
        member: its name in an `.npz`; empty in an `.npy`.
    """

    path: str
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else self.path


def load(stored: Stored) -> np.ndarray:
    """The array: mapped where it can be, else read whole and kept until another is asked for.

    Raises:
        ValueError: it is no array of plain values.
        OSError: the file cannot be read.
    """
    filesystem, inner = file_system(stored.path)
    if isinstance(filesystem, LocalFileSystem):
        stamp = os.stat(inner)
        return _on_disk(inner, stored.member, stamp.st_mtime_ns, stamp.st_size)
    return _far(stored)


@functools.lru_cache(maxsize=4)
def _on_disk(path: str, member: str, changed: int, size: int) -> np.ndarray:
    del changed, size  # a file that was written anew is another one
    if not member:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{member}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as file:
                file.seek(info.header_offset)
                name, extra = struct.unpack("<HH", file.read(30)[26:30])
                start = info.header_offset + 30 + name + extra
                file.seek(start)
                shape, fortran, dtype = _header(file)
                if dtype.hasobject:
                    raise ValueError("holds objects, which are not read; allowed: numbers")
                if not int(np.prod(shape)):
                    return np.zeros(shape, dtype)
                return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
        return _unpacked(archive, info)


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > MOST_RATIO * max(1, info.compress_size):
        raise ValueError(f"its {info.compress_size:,} bytes would become {info.file_size:,}, a decompression bomb")
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"is of version {version} of the format, which is not read")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


@functools.lru_cache(maxsize=4)
def _far(stored: Stored) -> np.ndarray:
    filesystem, inner = file_system(stored.path)
    with filesystem.open_input_file(inner) as file:
        source: Any = file
        if not stored.member:
            return npy.read_array(source, allow_pickle=False)
        with zipfile.ZipFile(source) as archive:
            return _unpacked(archive, archive.getinfo(f"{stored.member}.npy"))


@dataclass(frozen=True)
class ArrayPart:
    """Some rows of an array of images."""

    array: Stored
    first: int
    rows: int

    def labels(self) -> np.ndarray:
        raise NotImplementedError("LabelledPart has them")

    def read(self, rows: Any = None) -> pa.Table:
        chosen = self.first + np.arange(self.rows)[slice(None) if rows is None else np.asarray(rows, np.int64)]

        def read() -> np.ndarray:
            return np.array(load(self.array)[chosen])

        try:
            return pa.table(of_arrays([as_picture(image) for image in read_with_retries(self.array.path, read)]))
        except (ValueError, zipfile.BadZipFile) as error:
            raise LehrError(f"data: {self.array}: {error}") from error

    def name(self, row: int) -> str:
        return f"{self.array} row {self.first + row}"


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The arrays of an `.npz` file, or of the `.npy` files in a folder, or beside the one that is named."""
    assert section.path is not None, "DataSection requires a path for this source"
    wanted = Wanted.of(section, kind)
    try:
        found = _arrays(section.path, job_error)
        splits = _by_split(section.path, found, wanted, job_error)
        sources = {split: _source(section.path, found, names, wanted, job_error) for split, names in splits.items()}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        text = str(error).splitlines()[0]
        raise job_error("data.path", f'"{section.path}" cannot be read as NumPy arrays: {text}') from None
    used = {name for pair in splits.values() for name in pair}
    left = [name for name in found if name not in used]
    notes = (f"arrays left out of {section.path}: {shown(left)}",) if left else ()
    return with_splits(in_splits(section.path, sources, notes), section, job_error)


def _arrays(path: str, job_error: ErrorFactory) -> dict[str, Stored]:
    """The arrays at a path by their names: those of an `.npz`, or `.npy` files by theirs."""
    filesystem, inner = file_system(path)
    kind = filesystem.get_file_info(inner).type
    if kind == FileType.NotFound:
        raise job_error("data.path", f'"{path}" does not exist')
    if kind == FileType.File and kind_of(path) == ".npz":
        with filesystem.open_input_file(inner) as file:
            source: Any = file
            with zipfile.ZipFile(source) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {name: Stored(path, name) for name in names}
    folder = path if kind == FileType.Directory else path.rpartition("/")[0] or "."
    below = list_folder(*file_system(folder)).files
    if packed := [name for name in below if name.endswith(".npz")]:
        if kind == FileType.Directory and len(packed) == 1:
            return _arrays(join_path(folder, packed[0]), job_error)
        if kind == FileType.Directory:
            what, first = f'"{path}" has {len(packed)} .npz files, {shown(packed)}', join_path(path, sorted(packed)[0])
            raise job_error("data.path", f"{what}; type data.path={first}")
    files = sorted(name for name in below if name.endswith(".npy"))
    return {name.removesuffix(".npy").replace("/", "_"): Stored(join_path(folder, name)) for name in files}


def _by_split(
    path: str, found: Mapping[str, Stored], wanted: Wanted, job_error: ErrorFactory
) -> dict[str, tuple[str, str]]:
    """By split, the names of its arrays of images and labels."""
    roles: dict[str, dict[str, str]] = defaultdict(dict)
    named: dict[str | None, str] = {wanted.image: "images", **dict.fromkeys(wanted.columns, "labels")}
    for name in found:
        words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
        split = next((each for word in words if (each := split_of(word))), "train")
        rest = [word for word in words if not split_of(word)]
        role = "images" if set(rest) & set(IMAGES) else "labels" if set(rest) & set(LABELS) else ""
        if any(named) and split == "train":
            role = named.get(name, role if role not in {named[each] for each in named if each} else "")
        if role and roles[split].setdefault(role, name) != name:
            first = roles[split][role]
            what = f'"{path}" has two arrays of {role} for {split}, {first} and {name}'
            instead = f"data.columns.image={first}" if role == "images" else f"data.columns.label={first}"
            raise job_error("data.path", f"{what}; type {instead}")
    whole = {split: (each["images"], each["labels"]) for split, each in roles.items() if len(each) == 2}
    if "train" not in whole:
        example = "such as images and labels, or x_train and y_train"
        what = f'"{path}" has the arrays {shown(found) or "none"}, and no images with labels to train on, {example}'
        raise job_error("data.path", f"{what}; type data.columns.image=NAME data.columns.label=NAME")
    return {split: whole[split] for split in ("train", "validation", "test") if split in whole}


def _source(
    path: str, arrays: Mapping[str, Stored], names: tuple[str, str], wanted: Wanted, job_error: ErrorFactory
) -> Source:
    x, y = (arrays[name] for name in names)
    images, labels = load(x), load(y)
    if images.ndim not in (2, 3, 4) or not len(images):
        what = f"{x} has the shape {list(images.shape)}; allowed: [rows, height, width] or with channels"
        raise job_error("data.path", what)
    if len(images) != len(labels):
        raise job_error("data.path", f"{x} has {len(images):,} rows, and {y} has {len(labels):,}; allowed: as many")
    as_picture(np.array(images[0]))  # a shape that is none is told now
    values = np.array(labels)
    if values.ndim == 2 and wanted.kind == "class":
        values = _one_each(values)
    try:
        given: Any = pa.array(values) if values.ndim == 1 else pa.array(list(values))
        found = read_columns({names[1]: given}, wanted.kind, lambda row: f"{y} row {row}", None)
    except WrongLabels as error:
        raise job_error("data.path", f'"{path}" {error}') from None
    parts = tuple(
        LabelledPart(ArrayPart(x, start, min(ROWS, len(images) - start)), found.labels[start : start + ROWS])
        for start in range(0, len(images), ROWS)
    )
    return Source(path, parts, found.names, kind=wanted.kind, form="NumPy arrays", columns=names)


def _one_each(labels: np.ndarray) -> np.ndarray:
    """The class of each row, from [rows, 1] or one-hot rows; others as they are."""
    if labels.shape[1] == 1:
        return labels[:, 0]
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels.argmax(axis=1) if one_hot else labels
