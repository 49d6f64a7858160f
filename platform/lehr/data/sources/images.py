"""Class folders: each folder contains the images of one class, on a disk or an object store.

If the folder contains folders `train`, `val` (or `valid`, `validation`) and `test`, these are its splits. Hidden files,
and files without an image's ending, are ignored. Rows are ordered by the hash of their path, so that any stretch of
them contains all classes.
"""

from __future__ import annotations

import errno
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from lehr.data.sources.base import (
    ErrorFactory,
    Source,
    file_system,
    join_path,
    list_entries,
    read_with_retries,
    split_folders,
)
from lehr.job import DataSection
from lehr.runs.stores import Disk

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FILES_PER_PART = 256
MOST_BYTES = 1 << 30  # of a file: 120 million pixels of 16 bits in three channels, not compressed, have less


@dataclass(frozen=True)
class FilesPart:
    """Some image files under one folder, with the label of each."""

    folder: str
    files: tuple[str, ...]
    file_labels: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.files)

    def labels(self) -> np.ndarray:
        return np.array(self.file_labels, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        rows = range(len(self.files)) if rows is None else rows
        filesystem, root = file_system(self.folder)

        def encoded(row: int) -> bytes:
            return read_with_retries(self.name(row), partial(_read, filesystem, join_path(root, self.files[row])))

        if "://" in self.folder:
            with ThreadPoolExecutor(16) as pool:  # object stores are slow per request but serve many at once
                images = list(pool.map(encoded, rows))
        else:
            images = list(map(encoded, rows))
        labels = pa.array([self.file_labels[row] for row in rows], pa.int64())
        return pa.table({"image": pa.array(images, pa.large_binary()), "label": labels})

    def name(self, row: int) -> str:
        return join_path(self.folder, self.files[row])


def _read(filesystem: FileSystem, path: str) -> bytes:
    """The bytes of a file; none, which count as an unreadable image, for one that is gone or is no file with an end."""
    try:
        if isinstance(filesystem, LocalFileSystem):
            return Disk().read(path, MOST_BYTES)
        with filesystem.open_input_stream(path) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EFBIG, errno.ENXIO, errno.ELOOP, errno.EISDIR):
            return b""
        raise


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """The images in the class folders, or in those of each split."""
    assert section.path is not None, "DataSection requires a path for this source"
    root = section.path
    entries = _list(root, job_error)
    inside = _by_top_folder(entries)
    splits = split_folders(sorted(inside))
    if not splits:
        return _class_folders(root, entries, job_error)
    sources = {
        split: _class_folders(join_path(root, folder), inside[folder], job_error) for split, folder in splits.items()
    }
    train = sources.pop("train")
    return Source(root, train.parts, train.classes, sources, train.notes)


Entry = tuple[str, bool]
"""A path relative to some folder, and whether it is a folder itself."""


def _list(root: str, job_error: ErrorFactory) -> list[Entry]:
    """All folders and images below the root, hidden ones left out."""
    try:
        filesystem, path = file_system(root)
        kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise job_error("data.path", f'"{root}" does not exist')
        if kind == FileType.File:
            raise job_error("data.path", f'"{root}" is a file; allowed: a folder with one folder of images per class')
        found = list_entries(filesystem, path)
    except (OSError, ValueError) as error:
        raise job_error("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    entries = [(name, kind == FileType.Directory) for name, kind in found]
    return [(name, is_folder) for name, is_folder in entries if is_folder or name.lower().endswith(ENDINGS)]


def _by_top_folder(entries: list[Entry]) -> dict[str, list[Entry]]:
    """What is inside each of the folders at the top, relative to it."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for name, is_folder in entries:
        top, _, inside = name.partition("/")
        if inside:
            folders[top].append((inside, is_folder))
        elif is_folder:
            folders[top] += []
    return folders


def _class_folders(root: str, entries: list[Entry], job_error: ErrorFactory) -> Source:
    folders = {
        name: [file for file, is_folder in inside if not is_folder] for name, inside in _by_top_folder(entries).items()
    }
    classes = tuple(sorted(name for name, files in folders.items() if files))
    empty = sorted(name for name, files in folders.items() if not files)
    if not classes:
        what = f'"{root}" contains no folder with images; allowed: one folder of images per class'
        raise job_error("data.path", what)
    images = [(f"{name}/{file}", label) for label, name in enumerate(classes) for file in folders[name]]
    images.sort(key=lambda image: hashlib.blake2b(image[0].encode("utf-8", "surrogateescape"), digest_size=8).digest())
    parts, rest = [], iter(images)
    while some := list(islice(rest, FILES_PER_PART)):
        parts.append(FilesPart(root, tuple(name for name, _ in some), tuple(label for _, label in some)))
    notes: tuple[str, ...] = ()
    if empty:
        names = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        one = len(empty) == 1
        what = f"{len(empty)} folder{'' if one else 's'} in {root} {'has' if one else 'have'} no images and"
        notes = (f"{what} {'is' if one else 'are'} ignored: {names}",)
    return Source(root, tuple(parts), classes, notes=notes)
