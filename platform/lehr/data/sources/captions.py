"""Images with sentences about them, as COCO's JSON has them: a row for each image, with all its captions.

`data.path` is a JSON file, or a folder with some: `captions…` before others. Their names say which split they are of.
Images are found by their names, in the folder or, of a JSON file, in the one above it too.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from pyarrow.fs import FileType

from lehr.data.annotations import WrongAnnotations
from lehr.data.captions import FORMS, Captions, as_labels, read_captions
from lehr.data.labels import NO_LABEL, Labels, object_array
from lehr.data.sources.annotated_files import FilesBelow, beside_images, open_annotated, split_named, split_path
from lehr.data.sources.base import ErrorFactory, LabelledPart, Part, Source, file_system
from lehr.data.sources.boxes import no_boxes
from lehr.data.sources.images import FILES_PER_PART, FilesPart
from lehr.data.sources.listing import kind_of, shown
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

JSON = ".json"


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """The images of a data set, with their captions."""
    return open_annotated(
        section, job_error, lambda path: (_of_file(path), ()), lambda files: (_of_folder(files), ()), "captions"
    )


def has_captions(path: str) -> bool:
    """Whether a file, or a folder, has captions as COCO's JSON has them."""
    try:
        system, inner = file_system(path)
        there = system.get_file_info(inner).type
        if there == FileType.File:
            folder, _, name = path.rpartition("/")
            files = FilesBelow(folder or ".", inner.rpartition("/")[0], system, ())
            return kind_of(name) == JSON and _holds_captions(files, name)
        return there == FileType.Directory and bool(_files_of(FilesBelow.below(path)))
    except (OSError, ValueError):
        return False


def _of_file(path: str) -> dict[str, Source]:
    folder, name = split_path(path)
    if kind_of(name) != JSON:
        raise WrongAnnotations(f"it is a file that ends in {kind_of(name)}; allowed: {FORMS}")
    files = FilesBelow.below(folder)
    found = read_captions(files.read(name))
    files, name = beside_images(files, name, found.files)
    return {"train": _source(files, found, name)}


def _of_folder(files: FilesBelow) -> dict[str, Source]:
    names = _files_of(files)
    if not names:
        raise WrongAnnotations(f"it has no JSON file with captions; allowed: {FORMS}")
    found: dict[str, Source] = {}
    for name in names:
        split = split_named(name) or "train"
        if split in found:
            what = f"several JSON files are of one split, {shown(names)}"
            raise WrongAnnotations(f"{what}; allowed: train, val, test in their names, or the path of one of them")
        try:
            found[split] = _source(files, read_captions(files.read(name)), name)
        except WrongAnnotations as error:
            raise WrongAnnotations(f"{name}: {error}") from None
    return found


def _files_of(files: FilesBelow) -> list[str]:
    """The JSON files with captions: those called so, or all that have some."""
    found = files.ending(JSON)
    named = [name for name in found if "caption" in posixpath.basename(name).lower()]
    return named or [name for name in found if _holds_captions(files, name)]


def _holds_captions(files: FilesBelow, name: str) -> bool:
    try:
        whole = json.loads(files.read(name))
    except (ValueError, RecursionError):
        return False
    if not isinstance(whole, dict) or not {"images", "annotations"} <= whole.keys():
        return False
    return any(isinstance(each, dict) and "caption" in each for each in whole["annotations"] or ())


def _source(files: FilesBelow, read: Captions, near: str) -> Source:
    """The rows of one split. Raises WrongAnnotations where none of their images is there."""
    places = [files.image(each, near) for each in read.files]
    known = set(files.names)
    gone = [place for place in places if place not in known]
    if len(gone) == len(places):
        raise WrongAnnotations(f"none of its images is there, such as {gone[0]}; allowed: images below the folder")
    notes = [f"{len(gone):,} of {len(places):,} images are not there: {shown(gone[:4])}"] if gone else []
    parts: list[Part] = []
    for rows in _stretches(len(places)):
        bare = FilesPart(files.root, tuple(places[row] for row in rows), (NO_LABEL,) * len(rows))
        parts.append(LabelledPart(bare, as_labels([read.captions[row] for row in rows])))
    found = Source(files.root, tuple(parts), (), kind="captions", form="COCO captions JSON")
    return replace(found, notes=(*read.notes, *notes), image_ids=read.image_ids)


def _stretches(count: int) -> Iterator[range]:
    return (range(first, min(first + FILES_PER_PART, count)) for first in range(0, count, FILES_PER_PART))


def as_kind(source: Source, kind: LabelKind, *, optional: bool = False) -> Source:
    """Rows of another kind as rows with captions, or the other way: they have no labels then.

    Raises ValueError unless they may have none.
    """
    if not optional:
        if kind == "captions" and source.classes:
            raise ValueError(f"its rows have no captions, which captioning learns; allowed: {FORMS}")
        if kind != "captions":
            raise ValueError("its rows have captions; allowed: task: captioning")
    others = {split: as_kind(other, kind, optional=True) for split, other in source.other_splits.items()}
    parts = tuple(LabelledPart(part, _without(kind, part.rows)) for part in source.parts)
    return replace(source, parts=parts, classes=(), other_splits=others, kind=kind)


def _without(kind: LabelKind, rows: int) -> Labels:
    """The labels of rows that have none."""
    if kind == "captions":
        return as_labels([()] * rows)
    if kind == "boxes":
        return no_boxes(rows)
    if kind == "mask":
        return object_array([np.zeros((0, 0), np.uint8)] * rows)
    return np.full(rows, NO_LABEL) if kind == "class" else np.zeros((rows, 0))
