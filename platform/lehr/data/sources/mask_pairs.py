"""Images with masks, a class for each pixel: what is there decides where they come from.

| form | what is there |
|---|---|
| pairs of folders | `images/` and `masks/`, `img/` and `labels/`, `JPEGImages/` and `SegmentationClass/`, … |
| Cityscapes | `leftImg8bit/` and `gtFine/`, `…_labelTrainIds` before `…_labelIds` |
| one folder | `x.jpg` and `x_mask.png` |
| COCO JSON | `lehr.data.sources.annotations` draws its polygons and run lengths |
| Parquet, a table | a column with masks, or with their files: `mask`, `label`, … |

Splits are folders that are called so, or `ImageSets/Segmentation/train.txt`. Classes are named by `classes.txt`,
`class_dict.csv`, `labelmap.txt`, by the file's metadata or by `data.classes`; else the values of the masks are it.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyarrow.fs import FileType

from lehr.data.annotations import WrongAnnotations
from lehr.data.labels import NO_LABEL
from lehr.data.masks import (
    Palette,
    pascal_palette,
    read_palette,
)
from lehr.data.sources import parquet, table
from lehr.data.sources.annotations import open_source as open_annotations
from lehr.data.sources.base import ErrorFactory, Part, Source, file_system, join_path
from lehr.data.sources.images import ENDINGS, FILES_PER_PART, FilesPart
from lehr.data.sources.listing import kind_of, list_folder, shown
from lehr.data.sources.masks import FORMS, Classes, classes_for
from lehr.data.sources.splits import split_of
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.tasks.forms import NOT_COUNTED, LabelKind

PASCAL = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""By the value in `…_labelIds`, the classes that are measured, in the order of `…_labelTrainIds`."""
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "rgb", "photos", "inputs", "input", "x")
MASK_FOLDERS = (
    *("masks", "mask", "segmentationclass", "segmentationclassaug", "gtfine", "gtcoarse", "segmentation"),
    *("segmentations", "labels", "label", "annotations", "annotation", "annots", "gt", "groundtruth", "ground_truth"),
    *("trimaps", "targets", "target", "labelmaps", "masks_png", "y"),
)
BESIDE = re.compile(r"(.+?)[_-]?(labels?|annot|annotations|masks?|gt)", re.IGNORECASE)
"""A folder whose masks are those of the images in another: `train_labels`, `trainannot` for `train`."""
IMAGE_SUFFIX = re.compile(r"_(leftimg8bit|image|img|rgb|sat)$", re.IGNORECASE)
MASK_SUFFIX = re.compile(
    r"[_.-](gt(fine|coarse)_(labeltrainids|labelids)|masks?|labels?|seg(mentation)?|gt|annotation|l)$", re.IGNORECASE
)
NOT_CLASSES = re.compile(r"_(color|instanceids|instancetrainids|instances|panoptic|polygons|depth)$", re.IGNORECASE)
NAMES = ("classes.txt", "class_dict.csv", "labelmap.txt", "label_colors.txt", "class_names.txt", "labels.txt")
MOST_NAMES_BYTES = 1 << 20


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind = "mask") -> Source:
    """The images with their masks, of the form that is there."""
    assert section.path is not None, "DataSection requires a path for this source"
    path = section.path.rstrip("/") or "/"
    try:
        system, inner = file_system(path)
        info = system.get_file_info(inner)
        if info.type == FileType.NotFound:
            raise job_error("data.path", f'"{path}" does not exist')
        names = list_folder(system, inner).files if info.type == FileType.Directory else []
        if opener := _other_form(path, names):
            found: Source = opener(section, job_error, "mask")
            return found
        if info.type == FileType.File:
            what = f"is no set of images with masks; allowed: {FORMS}"
            raise job_error("data.path", f'"{path}" {what}')
        return _of_pairs(path, names, section)
    except WrongAnnotations as error:
        raise job_error("data.path", f'"{path}": {error}') from None
    except LehrError as error:
        if str(error).startswith("data: the mask "):
            raise job_error("data.path", str(error).removeprefix("data: ")) from None
        raise
    except (OSError, ValueError) as error:
        raise job_error("data.path", f'"{path}" cannot be read: {str(error).splitlines()[0]}') from error


def has_masks(path: str, names: Sequence[str]) -> bool:
    """Whether there are pairs of images and masks, or what may hold masks; `names` below a folder, none of a file."""
    pairs, _, masks = pair_up(names)
    return bool(pairs or masks) or _other_form(path, names) is not None


def in_pairs(path: str) -> bool:
    """Whether the files below a folder are images with masks beside them, by their names."""
    try:
        filesystem, inner = file_system(path)
        return bool(pair_up(list_folder(filesystem, inner).files)[0])
    except (OSError, ValueError):
        return False


def _other_form(path: str, names: Sequence[str]) -> Any:
    """The function that opens it, where masks are in no files of their own beside the images."""
    kinds = Counter(map(kind_of, names or [path]))
    if kinds[parquet.ENDING]:
        return parquet.open_source
    pairs, _, _ = pair_up(names)
    if kinds[".json"] and not pairs:
        jsons = [name for name in names or [path] if kind_of(name) == ".json"]
        if not names or any(posixpath.basename(each).lower().startswith("instances") for each in jsons):
            return open_annotations
        if not any(map(table.lists_rows, [each for each in names if kind_of(each) in (".csv", ".tsv", ".jsonl")])):
            return open_annotations
    if not names and kind_of(path) in table.ENDINGS:
        return table.open_source
    if not pairs and any(map(table.lists_rows, names)):
        return table.open_source
    return None


def pair_up(names: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """By image, its mask; images without one; and masks without an image."""
    images, masks = dict[str, str](), dict[str, list[str]]()
    there = {part.lower() for name in names for part in name.split("/")[:-1]}
    for name in sorted(names):
        if kind_of(name) not in ENDINGS or NOT_CLASSES.search(posixpath.splitext(name)[0]):
            continue
        is_mask, key = _role(name, there)
        if is_mask:
            masks.setdefault(key, []).append(name)
        else:
            images.setdefault(key, name)
    pairs = {image: min(masks[key], key=_preferred) for key, image in images.items() if key in masks}
    alone = [image for key, image in images.items() if key not in masks]
    return pairs, alone, [each for key, found in masks.items() if key not in images for each in found]


def _preferred(name: str) -> tuple[bool, bool, str]:
    """Of several masks of an image: those with the numbers that are trained, and without loss, come first."""
    lower = name.lower()
    return "labeltrainids" not in lower, kind_of(name) in (".jpg", ".jpeg"), name


def _role(name: str, there: set[str]) -> tuple[bool, str]:
    """Whether a file is a mask, and what it has in common with its partner."""
    *folders, base = name.split("/")
    stem = posixpath.splitext(base)[0]
    for at in reversed(range(len(folders))):
        lower = folders[at].lower()
        beside = BESIDE.fullmatch(lower)
        if lower in MASK_FOLDERS:
            return True, "/".join([*folders[:at], *folders[at + 1 :], MASK_SUFFIX.sub("", stem)])
        if beside and beside[1] in there:
            return True, "/".join([*folders[:at], beside[1], *folders[at + 1 :], MASK_SUFFIX.sub("", stem)])
        if lower in IMAGE_FOLDERS:
            return False, "/".join([*folders[:at], *folders[at + 1 :], IMAGE_SUFFIX.sub("", stem)])
    if MASK_SUFFIX.search(stem):
        return True, "/".join([*folders, MASK_SUFFIX.sub("", stem)])
    return False, "/".join([*folders, IMAGE_SUFFIX.sub("", stem)])


def _of_pairs(path: str, names: Sequence[str], section: DataSection) -> Source:
    for field, said in (
        ("columns", section.columns.model_dump(exclude_none=True)),
        ("split", section.split),
        ("group", section.group),
    ):
        if said:
            raise WrongAnnotations(f"its masks are files, which data.{field} says nothing about; leave it out")
    pairs, alone, orphans = pair_up(names)
    if not pairs:
        if alone and not orphans:
            what = f"its {len(alone):,} images have no masks, which segmentation learns; allowed: {FORMS}"
            raise WrongAnnotations(what)
        if alone:
            what = f"no mask has the name of an image, such as {orphans[0]} and {alone[0]}"
            raise WrongAnnotations(f"{what}; allowed: the same names in {' and '.join(_folders(alone, orphans))}")
        raise WrongAnnotations(f"it has no images with masks; allowed: {FORMS}")
    splits = _splits(path, names, pairs)
    known, palette = _names_beside(path, names)
    train_ids = any("labelids" in mask.lower() for mask in pairs.values())
    classes = None
    if any("labeltrainids" in mask.lower() for mask in pairs.values()) and not known:
        known = tuple(CITYSCAPES.values())
    elif train_ids and not known:
        chosen = {**dict.fromkeys(range(255), NOT_COUNTED), **{v: k for k, v in enumerate(CITYSCAPES)}}
        classes = Classes(tuple(CITYSCAPES.values()), chosen)
    elif not known and any("SegmentationClass" in mask.split("/") for mask in pairs.values()):
        known = PASCAL if not section.classes or set(section.classes) <= set(PASCAL) else ()
    parts = {split: _file_parts(path, images, pairs) for split, images in splits.items()}
    classes = classes or classes_for(
        [masks for each in parts.values() for _, masks in each], known, palette, section.classes or ()
    )
    if known == PASCAL and palette is None:
        classes = replace(classes, palette=pascal_palette(len(PASCAL)))
    form = f"images with masks, {' and '.join(_folders(list(pairs), list(pairs.values())))}"
    notes = []
    listed = bool(_lists(names))
    if alone and not listed:
        some = shown(alone[:4])
        notes.append(f"{len(alone):,} of {len(alone) + len(pairs):,} images have no mask and are left out: {some}")
    if orphans:
        notes.append(f"{len(orphans):,} masks have no image and are left out: {shown(orphans[:4])}")
    if any(kind_of(mask) in (".jpg", ".jpeg") for mask in pairs.values()):
        notes.append("some masks are JPEG, which changes values along edges; PNG keeps them")
    sources = {
        split: Source(path, tuple(classes.part(*each) for each in some_parts), classes.names, kind="mask", form=form)
        for split, some_parts in parts.items()
    }
    if "train" not in sources:
        if len(sources) > 1:
            what = f"it has masks for {', '.join(sources)}, and none to train on"
            raise WrongAnnotations(f"{what}; allowed: a folder train, or one split alone")
        sources = {"train": next(iter(sources.values()))}
    train = sources.pop("train")
    return replace(train, other_splits=sources, notes=tuple(notes))


def _folders(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str]:
    """The folders of an image and of a mask that differ, for messages."""
    one, other = (posixpath.dirname(min(each)) or "." for each in (images, masks))
    return f"{one}/", f"{other}/"


def _file_parts(path: str, images: Sequence[str], pairs: Mapping[str, str]) -> list[tuple[Part, Part]]:
    found: list[tuple[Part, Part]] = []
    for first in range(0, len(images), FILES_PER_PART):
        some = images[first : first + FILES_PER_PART]
        none = (NO_LABEL,) * len(some)
        found.append((FilesPart(path, tuple(some), none), FilesPart(path, tuple(pairs[each] for each in some), none)))
    return found


def _lists(names: Sequence[str]) -> dict[str, str]:
    """By split, the text file that lists its images: `ImageSets/Segmentation/train.txt`."""
    found = {}
    for name in names:
        listing = kind_of(name) == ".txt" and "imagesets/segmentation/" in f"/{name.lower()}"
        if listing and (split := split_of(posixpath.splitext(posixpath.basename(name))[0])):
            found[split] = name
    return found


def _splits(path: str, names: Sequence[str], pairs: Mapping[str, str]) -> dict[str, list[str]]:
    """By split, its images."""
    lists = _lists(names)
    if lists:
        by_stem = {posixpath.splitext(posixpath.basename(image))[0]: image for image in pairs}
        found: dict[str, list[str]] = {}
        for split, name in lists.items():
            stems = [line.split()[0] for line in _text(path, name).splitlines() if line.strip()]
            if missing := [each for each in stems if each not in by_stem]:
                raise WrongAnnotations(f"{name} names {missing[0]}, of which there is no image with a mask")
            found[split] = [by_stem[each] for each in stems]
        return found
    found = {}
    for image in pairs:
        folders = image.split("/")[:-1]
        split = next(filter(None, map(split_of, folders)), "train")
        found.setdefault(split, []).append(image)
    return found


def _names_beside(path: str, names: Sequence[str]) -> tuple[tuple[str, ...], Palette | None]:
    """The names and colours of classes that a file of the folder, or of the one above it, says."""
    for wanted in NAMES:
        for name in sorted((each for each in names if posixpath.basename(each).lower() == wanted), key=len):
            return _palette(path, name)
    above = posixpath.dirname(path.rstrip("/"))
    for wanted in NAMES if above else ():
        try:
            return _palette(above, wanted)
        except (OSError, FileNotFoundError):
            continue
    return (), None


def _palette(folder: str, name: str) -> tuple[tuple[str, ...], Palette | None]:
    try:
        return read_palette(_text(folder, name))
    except WrongAnnotations as error:
        raise WrongAnnotations(f"{name}: {error}") from None


def _text(folder: str, name: str) -> str:
    system, inner = file_system(join_path(folder, name))
    with system.open_input_stream(inner) as file:
        content = file.read(MOST_NAMES_BYTES)
    try:
        return bytes(content).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongAnnotations(f"{name} is not in UTF-8; allowed: text in UTF-8") from None


# ── columns of tables ───────────────────────────────────────────────────────────────────────────────────────────────
