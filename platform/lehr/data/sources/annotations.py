"""Images with boxes, as annotation tools write them: COCO JSON, Pascal VOC XML, YOLO text. What is there decides.

| form | what `data.path` is | its splits are named by |
|---|---|---|
| COCO | a JSON file, or a folder with some: `instances…` before others | the files, or their folders |
| Pascal VOC | a folder with XML files | `ImageSets/Main/train.txt` …, else the folders |
| YOLO | a folder with a text file for each image, or its `data.yaml` | the folders |

The classes of YOLO text are named by `data.yaml`, or by `classes.txt`. Images are found by their names, in the folder
or, of a JSON file, in the one above it too.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import yaml

from lehr.data.annotations import BoxAnnotations, WrongAnnotations, read_coco, read_voc, read_yolo
from lehr.data.labels import NO_LABEL, Ragged
from lehr.data.sources.annotated_files import FilesBelow, Found, beside_images, open_annotated, split_named, split_path
from lehr.data.sources.base import ErrorFactory, Part, Source
from lehr.data.sources.boxes import BoxesPart
from lehr.data.sources.images import FILES_PER_PART, FilesPart
from lehr.data.sources.listing import kind_of, shown
from lehr.data.sources.masks import FORMS as FORMS_OF_MASKS
from lehr.data.sources.masks import Classes, ShapesPart
from lehr.data.sources.splits import split_of
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

FORMS = "COCO JSON, Pascal VOC XML, or YOLO text with data.yaml"
YAML = (".yaml", ".yml")
NAMES = ("classes.txt", "obj.names", "labels.txt")
"""Files beside YOLO text that name the classes, one a line, where no YAML file does."""
_FILENAME = re.compile(rb"<filename>\s*(.*?)\s*</filename>")
_PASCAL = re.compile(rb"<database>\s*The VOC20\d\d Database\s*</database>")


Read = tuple[BoxAnnotations, list[str]]
"""Annotations, and the image of each of their rows in the listing."""


def is_annotated(root: str) -> bool:
    """Whether the names below a folder are those of images with boxes; no file is read."""
    names = FilesBelow.below(root).names
    bases = {posixpath.basename(name).lower() for name in names}
    coco = any(each.endswith(".json") and ("instances" in each or "coco" in each) for each in bases)
    voc = any(name.endswith(".xml") and "annotations" in posixpath.dirname(name).lower() for name in names)
    texts = any(each.endswith(".txt") and each not in NAMES for each in bases)
    yolo = bool({"data.yaml", "classes.txt", "obj.names"} & bases) and texts
    return coco or voc or yolo


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind = "boxes") -> Source:
    """The images of a data set, with their boxes, with masks of their polygons and run lengths, or with captions."""
    if kind == "captions":
        from lehr.data.sources.captions import open_source as open_captions  # which reads files as this module does

        return open_captions(section, job_error)
    masks = kind == "mask"

    def sources(files: FilesBelow, splits: Mapping[str, Read], notes: Sequence[str]) -> Found:
        return {split: _source(files, *read) for split, read in splits.items()}, notes

    return open_annotated(
        section,
        job_error,
        lambda path: sources(*_of_file(path, masks)),
        lambda files: sources(*_of_folder(files, masks)),
        "annotations",
    )


def _of_file(path: str, masks: bool) -> tuple[FilesBelow, dict[str, Read], list[str]]:
    """Of a file that `data.path` names."""
    folder, name = split_path(path)
    if kind_of(name) in YAML:
        return _of_folder(FilesBelow.below(folder), masks)
    if kind_of(name) != ".json":
        raise WrongAnnotations(f"it is a file that ends in {kind_of(name)}; allowed: a .json file, or a folder")
    files = FilesBelow.below(folder)
    found = read_coco(files.read(name), shapes=masks)
    files, name = beside_images(files, name, found.files)
    return files, {"train": (found, [files.image(each, name) for each in found.files])}, []


def _of_folder(files: FilesBelow, masks: bool = False) -> tuple[FilesBelow, dict[str, Read], list[str]]:
    """Of a folder: the first form of which something is there; a note says what else is."""
    jsons, xmls = _instances(files), files.ending(".xml")
    texts = [name for name in files.ending(".txt") if posixpath.splitext(posixpath.basename(name))[0] in files.stems]
    there = {"COCO": jsons, "Pascal VOC": xmls, "YOLO": texts}
    form = next((form for form, names in there.items() if names), None)
    if form is None:
        has = f"{len(files.names):,} files, none of which is an annotation" if files.names else "no files"
        raise WrongAnnotations(f"it has {has}; allowed: {FORMS}")
    if masks and form != "COCO":
        raise WrongAnnotations(f"{form} has boxes and no masks; allowed: {FORMS_OF_MASKS}")
    others = [f"{len(names):,} of {other}" for other, names in there.items() if names and other != form]
    if others and form == "YOLO":
        others = []
    readers: dict[str, Callable[..., dict[str, Read]]] = {
        "COCO": partial(_coco, shapes=masks),
        "Pascal VOC": _voc,
        "YOLO": _yolo,
    }
    read = readers[form](files, there[form])
    what = "masks" if masks else "boxes"
    also = [f"{what} are read from {form} ({shown(there[form])}); there are also {' and '.join(others)}"]
    return files, read, also if others else []


def _instances(files: FilesBelow) -> list[str]:
    """The JSON files with boxes: those called `instances…`, or all that have annotations of images."""
    found = files.ending(".json")
    named = [name for name in found if "instances" in posixpath.basename(name).lower()]

    def has_boxes(name: str) -> bool:
        try:
            whole = json.loads(files.read(name))
        except (ValueError, RecursionError):
            return False
        return isinstance(whole, dict) and {"images", "annotations", "categories"} <= whole.keys()

    return named or list(filter(has_boxes, found))


def _coco(files: FilesBelow, names: Sequence[str], *, shapes: bool = False) -> dict[str, Read]:
    found: dict[str, Read] = {}
    for name in names:
        split = split_named(name) or "train"
        if split in found:
            what = f"several JSON files are of one split, {shown(names)}"
            raise WrongAnnotations(f"{what}; allowed: train, val, test in their names, or the path of one of them")
        try:
            read = read_coco(files.read(name), shapes=shapes)
        except WrongAnnotations as error:
            raise WrongAnnotations(f"{name}: {error}") from None
        found[split] = read, [files.image(each, name) for each in read.files]
    return found


def _voc(files: FilesBelow, names: Sequence[str]) -> dict[str, Read]:
    contents = {name: files.read(name) for name in names}
    places = []
    for name, content in contents.items():
        own = posixpath.splitext(posixpath.basename(name))[0]
        by_stem = files.stems.get(own, [])
        said = _FILENAME.search(content)
        there = said[1].decode(errors="replace") if said else f"{own}.jpg"
        places.append(by_stem[0] if len(by_stem) == 1 else files.image(there, name))
    read = read_voc(contents, from_one=all(_PASCAL.search(each) for each in contents.values()), images=places)
    stems = [posixpath.splitext(posixpath.basename(name))[0] for name in names]
    lists = {
        split: name
        for name in files.ending(".txt")
        if "imagesets/" in name.lower() and (split := split_of(posixpath.splitext(posixpath.basename(name))[0]))
    }
    if not lists:
        return _by_folder(read, places, names)
    number = {stem: row for row, stem in enumerate(stems)}
    splits = {}
    for split, name in lists.items():
        wanted = [line.split()[0] for line in files.read(name).decode().splitlines() if line.strip()]
        if missing := [each for each in wanted if each not in number]:
            raise WrongAnnotations(f"{name} names {missing[0]}, of which there is no XML file")
        splits[split] = _rows(read, places, [number[each] for each in wanted])
    return splits


def _yolo(files: FilesBelow, names: Sequence[str]) -> dict[str, Read]:
    classes = _yolo_classes(files)
    by_place = set(names)
    texts: dict[str, str | None] = {}
    for image in sorted(name for found in files.images.values() for name in found):
        stem = posixpath.splitext(image)[0]
        folders = stem.split("/")
        at = max((k for k, folder in enumerate(folders[:-1]) if folder == "images"), default=None)
        swapped = "/".join([*folders[:at], "labels", *folders[at + 1 :]]) if at is not None else stem
        text = next((each for each in (f"{swapped}.txt", f"{stem}.txt") if each in by_place), None)
        try:
            texts[image] = files.read(text).decode() if text else None
        except UnicodeDecodeError:
            raise WrongAnnotations(f"{text} is not in UTF-8; allowed: text in UTF-8") from None
    if not any(texts.values()):
        raise WrongAnnotations("no text file is beside its image, or in labels/ for one in images/")
    sizes = {image: _size(files, image) for image in texts}
    read = read_yolo(texts, sizes, classes)
    return _by_folder(read, list(texts), list(texts))


def _size(files: FilesBelow, image: str) -> tuple[int, int]:
    from lehr.data.decode import UnreadableImage, size_of  # which imports sources

    try:
        width, height = size_of(files.read(image))
    except UnreadableImage:
        return 1, 1  # which is told when it is decoded
    return height, width


def _yolo_classes(files: FilesBelow) -> list[str]:
    """The names of the classes. Raises WrongAnnotations where no file has them."""
    for name in files.ending(*YAML):
        content = yaml.safe_load(files.read(name))
        if not isinstance(content, dict) or "names" not in content:
            continue
        for split in ("train", "val", "test"):
            if str(content.get(split, "")).endswith(".txt"):
                what = f"{name} lists the images of {split} in a text file"
                raise WrongAnnotations(f"{what}; allowed: folders that are called as the splits are")
        return _named(content["names"], name)
    for name in files.names:
        if posixpath.basename(name) in NAMES:
            return [line.strip() for line in files.read(name).decode().splitlines() if line.strip()]
    what = "YOLO text has classes by number, and no file names them"
    raise WrongAnnotations(f"{what}; allowed: data.yaml with a list names, or classes.txt with a name a line")


def _named(names: Any, file: str) -> list[str]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise WrongAnnotations(f"{file}: names is {names!r:.60}; allowed: a list, or 0: NAME, 1: NAME, …")
    return [str(name) for name in names]


def _by_folder(read: BoxAnnotations, places: Sequence[str], names: Sequence[str]) -> dict[str, Read]:
    """The rows of each split, by the folders that their files are in; all are for training where none is a split."""
    splits = np.array([split_named(posixpath.dirname(name)) or "train" for name in names])
    return {split: _rows(read, places, np.flatnonzero(splits == split).tolist()) for split in np.unique(splits)}


def _rows(read: BoxAnnotations, places: Sequence[str], rows: Sequence[int]) -> Read:
    chosen = np.asarray(rows, np.int64)
    boxes = Ragged.of(np.column_stack([read.boxes.values, read.crowd]), read.boxes.lengths)[chosen]
    some = BoxAnnotations(
        tuple(read.files[row] for row in rows),
        read.sizes[chosen],
        read.names,
        Ragged.of(boxes.values[:, :5], boxes.lengths),
        boxes.values[:, 5] > 0,
        read.notes,
    )
    return some, [places[row] for row in rows]


def _source(files: FilesBelow, read: BoxAnnotations, places: Sequence[str]) -> Source:
    """The rows of one split. Raises WrongAnnotations where none of their images is there."""
    known = set(files.names)
    gone = [place for place in places if place not in known]
    if len(gone) == len(places):
        raise WrongAnnotations(f"none of its images is there, such as {gone[0]}; allowed: images below the folder")
    notes = [f"{len(gone):,} of {len(places):,} images are not there: {shown(gone[:4])}"] if gone else []
    boxes = Ragged.of(np.column_stack([read.boxes.values, read.crowd]), read.boxes.lengths)
    parts: list[Part] = []
    known_classes = _with_background(read.names) if read.shapes else None
    for rows in _stretches(len(places), FILES_PER_PART):
        bare = FilesPart(files.root, tuple(places[row] for row in rows), (NO_LABEL,) * len(rows))
        chosen = np.asarray(rows, np.int64)
        if known_classes:
            some = tuple(map(read.shapes.__getitem__, rows)), tuple(map(tuple, read.sizes[chosen].tolist()))
            parts.append(known_classes.part(bare, ShapesPart(*some, bare.files)))
            continue
        parts.append(BoxesPart(bare, boxes[chosen], read.sizes[chosen]))
    categories = dict(zip(read.names, read.category_ids, strict=False))
    told = (*read.notes, *notes)
    if known_classes:
        form = "COCO JSON with segmentations"
        return Source(files.root, tuple(parts), known_classes.names, notes=told, kind="mask", form=form)
    found = Source(files.root, tuple(parts), read.names, notes=told, kind="boxes")
    return replace(found, image_ids=read.image_ids, category_ids=categories)


def _with_background(names: Sequence[str]) -> Classes:
    """Things are drawn as their class + 1, and what is beside them is `background`, unless a class is called so."""
    if "background" not in names:
        return Classes(("background", *names))
    return Classes(tuple(names), {0: names.index("background"), **{k + 1: k for k in range(len(names))}})


def _stretches(count: int, most: int) -> Iterable[range]:
    return (range(first, min(first + most, count)) for first in range(0, count, most))
