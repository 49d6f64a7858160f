"""Class folders: each folder contains the images of one class, on a disk or an object store.

If the folder contains folders `train`, `val` (or `valid`, `validation`, `dev`) and `test`, these are its splits. Files
are taken by their ending, and those without any by their first bytes; what is left out is told. Rows are ordered by the
hash of their path, so that any stretch of them contains all classes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from lehr.data.sources.base import ErrorFactory, Source, file_system, join_path, read_with_retries
from lehr.data.sources.listing import Listing, kind_of, list_folder, shown
from lehr.data.sources.splits import (
    Folder,
    Unclear,
    WrongColumn,
    group_codes,
    groups_of_files,
    split_folders,
    split_of,
)
from lehr.job import DataSection
from lehr.runs.stores import Disk

ENDINGS = (
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".mpo",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
    ),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs"),
)
HEIF = (".heic", ".heif")  # taken where what reads them is installed
FILES_PER_PART = 256
MOST_BYTES = 1 << 30  # of a file: 120 million pixels of 16 bits in three channels, not compressed, have less
_FIRST_BYTES = 16
_AT_ONCE = 16  # requests to an object store, which is slow for each but serves many


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
            with ThreadPoolExecutor(_AT_ONCE) as pool:
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
    listing = list_images(root, job_error)
    top = by_folder(listing.files)
    try:
        splits = split_folders(
            root, {name: _contents(files) for name, files in top.items() if name}, section.classes or ()
        )
    except Unclear as error:
        raise job_error("data.path", str(error)) from None
    if not splits:
        found = _grouped(_class_folders(root, listing, job_error), section, job_error)
        return replace(found, notes=(*found.notes, *listing.left_out))
    sources = {
        split: _grouped(
            _class_folders(join_path(root, folder), listing.below(folder), job_error, split), section, job_error
        )
        for split, folder in splits.items()
    }
    train = sources.pop("train")
    outside = replace(listing, files=top.get("", []), folders=[name for name in listing.folders if "/" not in name])
    notes = _notes(root, outside, {"", *splits.values()})
    return replace(train, name=root, other_splits=sources, notes=(*train.notes, *notes, *listing.left_out))


def _grouped(source: Source, section: DataSection, job_error: ErrorFactory) -> Source:
    """The source with the groups that the job asks for, which the paths of its files say."""
    if section.group is None:
        return source
    files = [file for part in source.parts if isinstance(part, FilesPart) for file in part.files]
    try:
        found = groups_of_files(section.group, files, source.classes)
        return replace(source, groups=group_codes(found, files.__getitem__))
    except WrongColumn as error:
        raise job_error(error.field, f'"{source.name}": {error}') from None


@dataclass
class ImageListing(Listing):
    """What lies below a folder; the files are its images.

    Attributes:
        left_out: a sentence for each kind of thing that is left out.
    """

    left_out: tuple[str, ...] = ()

    def below(self, folder: str) -> ImageListing:
        """What of it lies below one of its folders."""
        start = f"{folder}/"
        files, folders = (
            [name[len(start) :] for name in names if name.startswith(start)] for names in (self.files, self.folders)
        )
        return ImageListing(folders, files)


def list_images(root: str, job_error: ErrorFactory) -> ImageListing:
    """The folders and images below a folder. Raises JobError where it is no folder, or cannot be listed."""
    try:
        filesystem, path = file_system(root)
        kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise job_error("data.path", f'"{root}" does not exist')
        if kind == FileType.File:
            raise job_error("data.path", f'"{root}" is a file; allowed: a folder with one folder of images per class')
        found = list_folder(filesystem, path)
        images = set(_images(filesystem, path, found.files))
    except (OSError, ValueError) as error:
        raise job_error("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    return ImageListing(found.folders, sorted(images), left_out=found.notes(root, images.__contains__))


def _images(filesystem: FileSystem, path: str, names: Iterable[str]) -> list[str]:
    """Those of the files that are images, by their ending, or by their first bytes where they have none."""
    taken, unnamed = [], []
    endings = (*ENDINGS, *HEIF) if _reads_heif() else ENDINGS
    for name in names:
        kind = kind_of(name)
        if kind in endings:
            taken.append(name)
        elif not kind.startswith("."):
            unnamed.append(name)

    def start(name: str) -> bytes:
        if isinstance(filesystem, LocalFileSystem) and not os.path.isfile(join_path(path, name)):
            return b""  # a FIFO would be waited for
        try:
            with filesystem.open_input_file(join_path(path, name)) as file:
                return file.read(_FIRST_BYTES)
        except (OSError, pa.ArrowException):
            return b""

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return taken + [name for name, first in zip(unnamed, pool.map(start, unnamed), strict=True) if _is_image(first)]


def _reads_heif() -> bool:
    from lehr.data.decode import FORMATS  # Pillow is needed for its formats only here

    return "HEIF" in FORMATS


def _is_image(first: bytes) -> bool:
    """Whether a file that starts with these bytes is an image of a format that is read."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
    inside = first[:4] == b"RIFF" and first[8:12] == b"WEBP", first[4:12] in (b"ftypavif", b"ftypavis")
    return first.startswith(starts) or any(inside) or (first[:2] == b"BM" and first[6:10] == bytes(4))


def by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """What is inside each folder at the top, relative to it; under "" what lies in none."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        top, _, inside = name.partition("/")
        folders[top if inside else ""].append(inside or name)
    return folders


def _contents(files: Iterable[str]) -> Folder:
    inside = by_folder(files)
    return Folder(bool(inside.get("")), {name for name in inside if name})


def _class_folders(root: str, listing: ImageListing, job_error: ErrorFactory, split: str = "") -> Source:
    """The images of each folder; `split` is the name of the split that it is, if it is one."""
    folders = by_folder(listing.files)
    classes = tuple(sorted(name for name in folders if name))
    if not classes:
        raise job_error("data.path", _no_classes(root, len(listing.files), split))
    images = [(f"{name}/{file}", label) for label, name in enumerate(classes) for file in folders[name]]
    images.sort(key=lambda image: hashlib.blake2b(image[0].encode("utf-8", "surrogateescape"), digest_size=8).digest())
    parts, rest = [], iter(images)
    while some := list(islice(rest, FILES_PER_PART)):
        parts.append(FilesPart(root, tuple(name for name, _ in some), tuple(label for _, label in some)))
    hint = _one_level_too_high(root, folders) if len(classes) == 1 else ""
    notes = _notes(root, listing, classes)
    return Source(root, tuple(parts), classes, notes=notes, hint=hint, form="class folders of images")


def _no_classes(root: str, loose: int, split: str) -> str:
    what = f'"{root}" contains no folder with images; allowed: one folder of images per class'
    if not loose:
        return what
    above, name = posixpath.split(root.rstrip("/"))
    found = "1 image lies in it directly" if loose == 1 else f"{loose:,} images lie in it directly"
    if split:
        return f"{what}. {found}; if {name} is no split but a class, name it in data.classes"
    return f"{what}. {found}; if {name} is a class itself, type data.path: {above}"


def _notes(root: str, listing: ImageListing, used: Iterable[str]) -> tuple[str, ...]:
    """Which images and folders at the top of it are not used."""
    notes = []
    if loose := sum("/" not in name for name in listing.files):
        one = loose == 1
        what = f"{loose:,} image{'' if one else 's'} directly in {root}, outside its folders,"
        notes.append(f"{what} {'is' if one else 'are'} left out")
    if empty := [name for name in listing.folders if "/" not in name and name not in used]:
        one = len(empty) == 1
        what = f"{len(empty)} folder{'' if one else 's'} in {root} {'has' if one else 'have'} no images and"
        notes.append(f"{what} {'is' if one else 'are'} ignored: {shown(empty)}")
    return tuple(notes)


def branching(root: str, folders: Mapping[str, list[str]]) -> tuple[str, Mapping[str, list[str]]]:
    """The folder at or below `root` in which there is more than a single folder, and what is in each of its folders."""
    while len(folders) == 1 and "" not in folders:
        ((name, files),) = folders.items()
        root, folders = join_path(root, name), by_folder(files)
    return root, folders


def _one_level_too_high(root: str, folders: Mapping[str, list[str]]) -> str:
    """What to type where a single folder holds several classes, or splits; empty where it holds images directly."""
    path, folders = branching(root, folders)
    if "" in folders:
        return ""
    what = "splits" if any(map(split_of, folders)) else "classes"
    return f"{path} holds {shown(folders)}; if these are the {what}, type data.path: {path}"
