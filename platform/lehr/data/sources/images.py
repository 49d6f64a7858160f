"""Class folders: each folder holds the images of one class, on a disk or an object store.

A folder with folders `train`, `val` (or `valid`, `validation`) and `test` has these as its own splits. Files that are
no images by their ending, and hidden ones, are ignored. The rows come in an order fixed by their paths' hashes, so that
any stretch of them holds all classes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs

from lehr.data.sources.base import ErrorFactory, Source, file_system, join_path, reading, split_folders
from lehr.job import DataSection

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FILES_PER_PART = 256


@dataclass(frozen=True)
class FilesPart:
    """Some image files under one folder."""

    folder: str
    files: tuple[str, ...]
    of_files: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.files)

    def labels(self) -> np.ndarray:
        return np.array(self.of_files, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        chosen = range(len(self.files)) if rows is None else rows
        filesystem, root = file_system(self.folder)

        def encoded(row: int) -> bytes:
            return reading(self.name(row), partial(_read, filesystem, join_path(root, self.files[row])))

        if "://" in self.folder:
            with ThreadPoolExecutor(16) as pool:  # a store answers slowly but many at once
                images = list(pool.map(encoded, chosen))
        else:
            images = list(map(encoded, chosen))
        labels = pa.array([self.of_files[row] for row in chosen], pa.int64())
        return pa.table({"image": pa.array(images, pa.large_binary()), "label": labels})

    def name(self, row: int) -> str:
        return join_path(self.folder, self.files[row])


def _read(filesystem: Any, path: str) -> bytes:
    try:
        with filesystem.open_input_stream(path) as file:
            return file.read()
    except FileNotFoundError:
        return b""  # gone since the folder was listed: an unreadable image like any other


def images(section: DataSection, refuse: ErrorFactory) -> Source:
    assert section.path is not None, "the job file's own checks ask for data.path"
    where = section.path
    try:
        filesystem, path = file_system(where)
        info = filesystem.get_file_info(path)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise refuse("data.path", f'"{where}" does not exist')
        if info.type == pyarrow.fs.FileType.File:
            raise refuse("data.path", f'"{where}" is a file; allowed: a folder with a folder of images for each class')
        entries = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise refuse("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    files: dict[str, list[str]] = defaultdict(list)  # by folder at the top
    for entry in entries:
        name = entry.path[len(path) :].lstrip("/")
        top, _, inside = name.partition("/")
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if entry.type == pyarrow.fs.FileType.Directory:
            files[top] += []
        elif inside and name.lower().endswith(ENDINGS):
            files[top].append(inside)
    splits = split_folders(sorted(files))
    if not splits:
        return _class_folders(where, files, refuse)
    folders: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in splits}
    for entry in entries:
        pieces = entry.path[len(path) :].lstrip("/").split("/")
        if entry.type == pyarrow.fs.FileType.Directory and len(pieces) == 2 and not pieces[1].startswith("."):
            folders[next(split for split, folder in splits.items() if folder == pieces[0])][pieces[1]] += []
    for split, folder in splits.items():
        for inside in files[folder]:
            top, _, rest = inside.partition("/")
            if rest:
                folders[split][top].append(rest)
    sources = {split: _class_folders(join_path(where, splits[split]), folders[split], refuse) for split in splits}
    train = sources.pop("train")
    return Source(where, train.parts, train.classes, sources, train.notes)


def _class_folders(where: str, files: dict[str, list[str]], refuse: ErrorFactory) -> Source:
    classes = tuple(sorted(name for name, inside in files.items() if inside))
    empty = sorted(name for name, inside in files.items() if not inside)
    if not classes:
        raise refuse("data.path", f'"{where}" holds no folder with images; allowed: a folder of images for each class')
    found = [(f"{name}/{inside}", label) for label, name in enumerate(classes) for inside in files[name]]
    found.sort(key=lambda item: hashlib.blake2b(item[0].encode("utf-8", "surrogateescape"), digest_size=8).digest())
    parts, rest = [], iter(found)
    while some := list(islice(rest, FILES_PER_PART)):
        parts.append(FilesPart(where, tuple(name for name, _ in some), tuple(label for _, label in some)))
    notes: tuple[str, ...] = ()
    if empty:
        names = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        notes = (f"{len(empty)} of the folders in {where} hold no images and are no classes: {names}",)
    return Source(where, tuple(parts), classes, notes=notes)
