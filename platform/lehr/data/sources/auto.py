"""The form of the data at a path, found by looking at it: endings, first bytes, and how files lie in folders.

What was understood is said in one line, and the source is that of the form which was found. What is no form that is
read is refused with what was seen and the nearest form.
"""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileType

from lehr.data.sources import arrow, captions, mask_pairs, parquet, table, tar_shards
from lehr.data.sources.base import ErrorFactory, Source, file_system, join_path
from lehr.data.sources.image_columns import can_be_image
from lehr.data.sources.images import branching, by_folder, list_images
from lehr.data.sources.listing import kind_of, list_folder, listed_once, shown, shown_kinds
from lehr.data.sources.shards import is_pattern
from lehr.data.sources.splits import split_of
from lehr.data.sources.told import told
from lehr.errors import JobError
from lehr.job import DataSection
from lehr.job.sections import wrong_pattern
from lehr.job.sources import SOURCES, SourceForm
from lehr.tasks.forms import LabelKind

NAMES, MOST_NAMES_BYTES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt"), 1 << 20
"""Files that list the names of classes which folders only number."""
BY_ENDING = {
    **dict.fromkeys((parquet.ENDING, ".pq"), "parquet"),
    **dict.fromkeys(arrow.ENDINGS, "arrow"),
    tar_shards.ENDING: "tar",
    **dict.fromkeys((".npz", ".npy"), "numpy"),
    **dict.fromkeys((".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json"), "table"),
}
"""The form of a file by its ending."""
INSTEAD = {
    ".zip": "unpack it: unzip {path}, then name the folder",
    **dict.fromkeys((".gz", ".tgz", ".bz2", ".xz", ".zst"), "unpack it, then name the folder or the file"),
    **dict.fromkeys((".pkl", ".pickle", ".p"), "a pickle may run any code when it is read; save it with numpy.savez"),
    **dict.fromkeys((".pt", ".pth"), "it may run any code when it is read; save its tensors with numpy.savez"),
    **dict.fromkeys((".h5", ".hdf5", ".mat"), "save its arrays as images and labels: numpy.savez('data.npz', …)"),
    ".tfrecord": "write it as Parquet or tar shards, or return its rows from a function (source: my_data:rows)",
    **dict.fromkeys((".lmdb", ".mdb", ".rec"), "return its rows from a function (source: my_data:rows)"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "save its table as Parquet or CSV"),
}
"""What to do with files of forms that are not read, by their ending."""


@dataclass(frozen=True)
class Recognised:
    """What data are.

    Attributes:
        source: the form, one of `lehr.job.sources.SOURCES`.
        path: where they begin: below the path that was named where that holds nothing else.
    """

    source: str
    path: str


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The source of the form that the data have, with a line that says what was understood."""
    with listed_once():
        return _opened(section, job_error, kind)


def _opened(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    assert section.path is not None, "DataSection requires a path for this source"
    if kind == "mask" and _has_masks(section.path):
        source = mask_pairs.open_source(section, job_error, kind)
        return replace(source, notes=(told(source, section.path), *source.notes))
    if kind == "captions" and not is_pattern(section.path) and captions.has_captions(section.path):
        _refuse_columns(section, section.path, SOURCES["annotations"], job_error)
        source = captions.open_source(section, job_error)
        return replace(source, notes=(told(source, section.path), *source.notes))
    found = recognise(section.path, section, job_error)
    form = SOURCES[found.source]
    opener: Any = import_module(f"lehr.data.sources.{form.module}").open_source
    named = section.model_copy(update={"source": found.source, "path": found.path})
    if not form.labels:
        _refuse_columns(section, found.path, form, job_error)
    try:
        source = opener(named, job_error, *([kind] if form.labels else []))
    except JobError as error:
        if found.source == "table" and (packed := _packed_beside(found.path)):
            unpack = f"{packed} lies beside it; if its images are in there, unpack it: {_unzip(packed)}"
            raise JobError(f"{error.what}. {unpack}", field=error.field, where=error.where) from None
        raise
    if found.source == "images":
        source = _with_names(source, found.path)
    return replace(source, notes=(told(source, section.path), *source.notes))


def _packed_beside(path: str) -> str:
    """A .zip file in the folder of a table, or in the folder itself; empty where there is none, or not on a disk."""
    if "://" in path:
        return ""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return next((str(each) for each in sorted(folder.glob("*.zip"))), "")


def _unzip(path: str) -> str:
    return f"unzip {shlex.quote(path)} -d {shlex.quote(str(Path(path).parent))}"


def _has_masks(path: str) -> bool:
    """Whether there is what may hold masks, by the names of the files."""
    if is_pattern(path):
        return False
    try:
        filesystem, inner = file_system(path)
        kind = filesystem.get_file_info(inner).type
        names = list_folder(filesystem, inner).files if kind == FileType.Directory else []
        return kind != FileType.NotFound and mask_pairs.has_masks(path, names)
    except (OSError, ValueError):
        return False


def _refuse_columns(section: DataSection, path: str, form: SourceForm, job_error: ErrorFactory) -> None:
    """Raises JobError where the job names columns of files that have none, or groups that their paths cannot say."""
    if section.columns.model_dump(exclude_none=True):
        raise job_error("data.columns", f'"{path}" holds image files, which have no columns; leave data.columns out')
    if section.split is not None:
        raise job_error("data.split", f'"{path}" holds image files, which have no columns; leave data.split out')
    if section.group is not None and (problem := wrong_pattern(section.group) if form.files else "has no groups"):
        raise job_error("data.group", problem)


def _with_names(source: Source, path: str) -> Source:
    """Classes that are numbers get the names that a file `classes.txt` lists, if it has one for each."""
    numbers = {name: int(name) for name in source.classes if name.isdecimal()}
    if len(numbers) < len(source.classes) or not numbers:
        return source
    for folder in (path, posixpath.dirname(path.rstrip("/"))):
        for file in NAMES:
            names = _lines(join_path(folder or ".", file))
            first = min(numbers.values())
            if len(names) == max(numbers.values()) - first + 1 and len(set(names)) == len(names):
                return _renamed(source, {name: names[number - first] for name, number in numbers.items()})
    return source


def _renamed(source: Source, names: Mapping[str, str]) -> Source:
    others = {split: _renamed(other, names) for split, other in source.other_splits.items()}
    classes = tuple(names.get(name, name) for name in source.classes)
    return replace(source, classes=classes, other_splits=others)


def _lines(path: str) -> list[str]:
    """The lines of a short text file that are not empty; none where there is no such file."""
    try:
        filesystem, inner = file_system(path)
        if not filesystem.get_file_info(inner).is_file:
            return []
        with filesystem.open_input_file(inner) as file:
            return [line.strip() for line in file.read(MOST_NAMES_BYTES).decode("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError):
        return []


# ── recognised ──────────────────────────────────────────────────────────────────────────────────────────────────────


def recognise(path: str, section: DataSection, job_error: ErrorFactory) -> Recognised:
    """The form of the data at a path. Raises JobError for what is none."""
    if is_pattern(path):
        return _of_file(path, job_error)
    try:
        filesystem, inner = file_system(path)
        kind = filesystem.get_file_info(inner).type
        if kind == FileType.NotFound:
            raise job_error("data.path", f'"{path}" does not exist')
        if kind == FileType.File:
            return _of_file(path, job_error)
        names = list_folder(filesystem, inner).files
    except (OSError, ValueError) as error:
        raise job_error("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    return _of_folder(path, names, job_error)


def _of_file(path: str, job_error: ErrorFactory) -> Recognised:
    ending = kind_of(path)
    form = BY_ENDING.get(ending)
    if form is None:
        if kind_of(path.split("?")[0]) in table.IMAGES:
            what = f'"{path}" is one image; name the folder that has a folder of images for each class'
            raise job_error("data.path", what)
        raise job_error("data.path", f'"{path}" {_unknown([path])}')
    if form == "parquet" and not is_pattern(path) and _has_files(path, job_error):
        return Recognised("table", path)
    return Recognised(form, path)


def _has_files(path: str, job_error: ErrorFactory) -> bool:
    """Whether a Parquet file names the files of its images."""
    schema = parquet.schema_of(path, "data.path", job_error)
    texts = (pa.string(), pa.large_string(), pa.string_view())
    named = any(each.name in table.FILE_COLUMNS and each.type in texts for each in schema)
    return named and not any(can_be_image(each.type) for each in schema)


def _of_folder(path: str, names: Sequence[str], job_error: ErrorFactory) -> Recognised:
    kinds = Counter(map(kind_of, names))
    bare = {posixpath.basename(name) for name in names}
    if kinds[".arrow"] and (arrow.STATE in bare or "dataset_dict.json" in bare):
        return Recognised("arrow", path)
    for ending, form in ((parquet.ENDING, "parquet"), (".arrow", "arrow"), (".feather", "arrow"), (".tar", "tar")):
        if kinds[ending]:
            return Recognised(form, path)
    images = list_images(path, job_error).files
    if not images and (kinds[".npz"] or kinds[".npy"]):
        return Recognised("numpy", path)
    tables = list(filter(table.lists_rows, names))
    if images:
        return _of_images(path, images, tables)
    if tables:
        return Recognised("table", path)
    what = _unknown(names) if names else "is empty"
    raise job_error("data.path", f'"{path}" {what}')


def _base(name: str) -> str:
    return posixpath.basename(name)


def _of_images(path: str, images: Sequence[str], tables: Sequence[str]) -> Recognised:
    """Class folders, or files that a table lists, or files without labels."""
    if any(_base(name) in ("metadata.csv", "metadata.jsonl") for name in tables):
        return Recognised("table", path)  # as Hugging Face has an image folder
    below, folders = branching(path, by_folder(images))
    depths = [name for name in folders if name]
    inside = [by_folder(files) for name, files in folders.items() if split_of(name)]
    split_only = bool(depths) and all(map(split_of, depths)) and all(set(each) <= {""} for each in inside)
    loose = len(folders.get("", ())) > len(images) / 2
    classes = len(depths) > 1 and not split_only and not loose
    if classes or (inside and any(set(each) - {""} for each in inside)):
        return Recognised("images", below)
    if tables:
        return Recognised("table", path if len(tables) > 1 else join_path(path, tables[0]))
    return Recognised("files" if loose or not depths else "images", path if loose else below)


def _unknown(names: Sequence[str]) -> str:
    """What files of no form are, and what is nearest to them."""
    bases = {_base(name).lower() for name in names}
    if any("idx3-ubyte" in base or "idx1-ubyte" in base for base in bases):
        return "holds MNIST in its first form; type data.source=torchvision:MNIST, and data.path=FOLDER above MNIST/raw"
    if any(base.startswith("data_batch_") or base == "batches.meta" for base in bases):
        return "holds CIFAR-10 as pickles; type data.source=torchvision:CIFAR10, with the folder above as data.path"
    kinds = Counter(map(kind_of, names))
    seen = f"has no data of a form that is read: {shown_kinds(kinds)}"
    for kind, _ in kinds.most_common():
        if instead := INSTEAD.get(kind):
            return f"{seen}; {instead.format(path=shown(names))}"
    forms = "class folders of images, Parquet, Arrow, CSV or JSON lines with files, tar shards, .npz"
    return f"{seen}; allowed: {forms}"
