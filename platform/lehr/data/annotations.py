"""Boxes from COCO JSON, Pascal VOC XML and YOLO text, into one form: pure functions of what the files hold.

Each reader returns `BoxAnnotations`: the images in order, and of each its boxes, with sides in pixels from the upper
left corner. Boxes are clipped to their image. One of which nothing is inside, or that has no area, is left out and
told. What is no annotation at all is refused with one sentence. No image is opened here: sizes are what the files say,
or are given.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from lehr.data.labels import Ragged

Box = tuple[int, float, float, float, float]
"""The class of a box, by number, and its sides x0, y0, x1, y1."""
MOST_SHOWN = 3


class WrongAnnotations(ValueError):
    """What is wrong with annotations, in one sentence: where, what, and what is allowed."""


@dataclass(frozen=True)
class BoxAnnotations:
    """The boxes of a set of images.

    Attributes:
        files: of the images, as the annotations name them.
        sizes: int64 [images, 2], height and width.
        names: of the classes.
        boxes: float64 [boxes, 5] in rows of the images: class and sides x0, y0, x1, y1.
        crowd: bool [boxes]: a box around many things of its class, or one that is marked as difficult. It is neither
            learned nor, if it is missed, a mistake.
        notes: what a user should know, one sentence each.
        shapes: of each image, where they were asked for, the class and the `segmentation` of each thing in it.
        image_ids, category_ids: as COCO JSON has them, in the order of files and names; empty for other forms.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    names: tuple[str, ...]
    boxes: Ragged
    crowd: np.ndarray
    notes: tuple[str, ...] = ()
    image_ids: tuple[int, ...] = ()
    category_ids: tuple[int, ...] = ()
    shapes: tuple[tuple[tuple[int, Any], ...], ...] = ()


class _Collected:
    """Boxes by image, while they are read; and what was left out."""

    def __init__(self, files: Sequence[str], sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> None:
        self.files, self.sizes, self.names = tuple(files), sizes, tuple(names)
        self.boxes: list[list[Box]] = [[] for _ in files]
        self.crowd: list[list[bool]] = [[] for _ in files]
        self.left_out: dict[str, list[str]] = {}
        if not files:
            raise WrongAnnotations("there is no image in it; allowed: at least one")
        if twice := [name for name, count in Counter(files).items() if count > 1]:
            raise WrongAnnotations(f"the image {twice[0]} is there twice; allowed: each image once")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise WrongAnnotations(f"the class {twice[0]} is there twice; allowed: different names")

    def add(self, image: int, box: Box, where: str, *, crowd: bool = False) -> None:
        """Adds a box, clipped; leaves it out where nothing of it is inside. Raises WrongAnnotations for no numbers."""
        label, *sides = box
        if not all(math.isfinite(side) for side in sides):
            raise WrongAnnotations(f"{where} of {self.files[image]} has a side that is no finite number")
        height, width = self.sizes[image]
        x0, y0, x1, y1 = sides
        kept = (min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height))
        if x1 <= x0 or y1 <= y0:
            self._leave_out("without area", image)
        elif kept[2] <= kept[0] or kept[3] <= kept[1]:
            self._leave_out("outside of their image", image)
        else:
            self.boxes[image].append((label, *kept))
            self.crowd[image].append(crowd)

    def _leave_out(self, why: str, image: int) -> None:
        self.left_out.setdefault(why, []).append(self.files[image])

    def done(self, notes: Iterable[str] = ()) -> BoxAnnotations:
        told = []
        for why, images in self.left_out.items():
            one = len(images) == 1
            some = ", ".join(dict.fromkeys(images[:MOST_SHOWN])) + (", …" if len(images) > MOST_SHOWN else "")
            what = "box" if one else "boxes"
            told.append(f"{len(images):,} {what} {why} {'is' if one else 'are'} left out: {some}")
        flat = [box for boxes in self.boxes for box in boxes]
        values = np.array(flat, np.float64).reshape(-1, 5)
        boxes = Ragged.of(values, [len(each) for each in self.boxes])
        crowd = np.array([each for several in self.crowd for each in several], bool)
        return BoxAnnotations(
            self.files, np.array(self.sizes, np.int64).reshape(-1, 2), self.names, boxes, crowd, (*told, *notes)
        )


# ── COCO ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_coco(content: bytes, *, shapes: bool = False) -> BoxAnnotations:
    """The boxes, or with `shapes` the polygons and run lengths, of a file `instances_….json`. Ids of images and
    categories may be any, with holes; classes are numbered in the order of their ids, as pycocotools has them. Raises
    WrongAnnotations."""
    whole = loaded(content)
    images, categories, annotations = (entries(whole, key) for key in ("images", "categories", "annotations"))
    images = sorted(images, key=lambda each: whole_number(each, "id", "an image"))
    categories = sorted(categories, key=lambda each: whole_number(each, "id", "a category"))
    number_of = numbers_of(images, "image")
    label_of = numbers_of(categories, "category")
    found = _Collected(
        [text_of(each, "file_name", "an image") for each in images],
        [(_size(each, "height"), _size(each, "width")) for each in images],
        [text_of(each, "name", "a category") for each in categories],
    )
    missing = 0
    of_images: list[list[tuple[int, Any]]] = [[] for _ in images] if shapes else []
    for each in annotations:
        where = f"annotation {each.get('id', '?')}"
        if (image := number_of.get(whole_number(each, "image_id", where))) is None:
            raise WrongAnnotations(f"{where} is of image {each['image_id']}, which is not among the images")
        if (label := label_of.get(whole_number(each, "category_id", where))) is None:
            raise WrongAnnotations(f"{where} has category {each['category_id']}, which is not among the categories")
        if shapes:
            if not each.get("segmentation"):
                missing += 1
            else:
                of_images[image].append((label, each["segmentation"]))
            continue
        box = each.get("bbox")
        if box is None:
            missing += 1
            continue
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
            raise WrongAnnotations(
                f"{where} of {found.files[image]} has the bbox {box!r}; allowed: [x, y, width, height]"
            )
        x, y, width, height = map(float, box)
        found.add(image, (label, x, y, x + width, y + height), where, crowd=bool(each.get("iscrowd", 0)))
    lacks = "segmentation" if shapes else "bbox"
    if shapes and annotations and missing == len(annotations):
        raise WrongAnnotations("none of its annotations has a segmentation; allowed: polygons, or run lengths")
    done = found.done([f"{missing:,} annotations have no {lacks} and are left out"] if missing else [])
    about = {"image_ids": tuple(number_of), "category_ids": tuple(label_of)}
    return replace(done, shapes=tuple(map(tuple, of_images)), **about)  # type: ignore[arg-type]


def loaded(content: bytes) -> Any:
    """What a JSON file holds. Raises WrongAnnotations."""
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        raise WrongAnnotations("it is not in UTF-8; allowed: JSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise WrongAnnotations(f"it is no JSON: {str(error).splitlines()[0]}") from error


def entries(
    whole: Any, key: str, form: str = "COCO JSON with images, annotations and categories"
) -> list[Mapping[str, Any]]:
    """A list of objects in a JSON file of this form. Raises WrongAnnotations where it has none."""
    found = whole.get(key) if isinstance(whole, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise WrongAnnotations(f'it has no list "{key}"; allowed: {form}')
    return found


def numbers_of(entries: Sequence[Mapping[str, Any]], what: str) -> dict[int, int]:
    """By id, the position. Raises WrongAnnotations for an id that is there twice."""
    found: dict[int, int] = {}
    for number, each in enumerate(entries):
        if each["id"] in found:
            raise WrongAnnotations(f"the id {each['id']} is that of more than one {what}; allowed: different ids")
        found[each["id"]] = number
    return found


def whole_number(entry: Mapping[str, Any], key: str, what: str) -> int:
    value = entry.get(key)
    if type(value) is not int:
        raise WrongAnnotations(f"{what} has the {key} {value!r}; allowed: a whole number")
    return value


def text_of(entry: Mapping[str, Any], key: str, what: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise WrongAnnotations(f"{what} has the {key} {value!r}; allowed: text")
    return value


def _size(entry: Mapping[str, Any], key: str) -> int:
    value = whole_number(entry, key, f"the image {entry.get('file_name', '')}")
    if value < 1:
        raise WrongAnnotations(f"the image {entry.get('file_name', '')} has the {key} {value}; allowed: from 1")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ── Pascal VOC ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_voc(
    files: Mapping[str, bytes],
    names: Sequence[str] | None = None,
    *,
    from_one: bool = False,
    images: Sequence[str] | None = None,
) -> BoxAnnotations:
    """The boxes of XML files, one for each image.

    Args:
        files: the content of each file, by its name.
        names: of the classes, in order; by default those that occur, sorted.
        from_one: the first pixel is 1 and a side includes its last one, as in the sets of Pascal itself; most programs
            that write such files count from 0.
        images: the image of each file; by default what it says, which tools that rename images leave as it was.

    Raises:
        WrongAnnotations: a file is no annotation, or names a class that `names` does not.
    """
    trees = {name: _tree(name, content) for name, content in files.items()}
    there = sorted({_inside(name, each, "name") for name, tree in trees.items() for each in tree.iter("object")})
    known = list(names) if names is not None else there
    if odd := [each for each in there if each not in known]:
        raise WrongAnnotations(f"it has the class {odd[0]}; allowed: {', '.join(known[:8])}")
    found = _Collected(
        images or [tree.findtext("filename") or f"{name.rpartition('.')[0]}.jpg" for name, tree in trees.items()],
        [
            (_side(name, tree, "size/height", least=1), _side(name, tree, "size/width", least=1))
            for name, tree in trees.items()
        ],
        known,
    )
    for image, (name, tree) in enumerate(trees.items()):
        for number, each in enumerate(tree.iter("object"), 1):
            x0, y0, x1, y1 = (_number(name, each, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
            shift = 1.0 if from_one else 0.0
            label = known.index(_inside(name, each, "name"))
            difficult = (each.findtext("difficult") or "0").strip() == "1"
            found.add(image, (label, x0 - shift, y0 - shift, x1, y1), f"object {number}", crowd=difficult)
    return found.done()


def _tree(name: str, content: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise WrongAnnotations(f"{name} declares entities, which no annotation needs; allowed: XML without them")
    try:
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise WrongAnnotations(f"{name} is no XML: {str(error).splitlines()[0]}") from error
    if tree.tag != "annotation":
        raise WrongAnnotations(f"{name} begins with <{tree.tag}>; allowed: <annotation>, as Pascal VOC has it")
    return tree


def _inside(name: str, element: ElementTree.Element, path: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise WrongAnnotations(f"{name} has an object without {path}")
    return text


def _number(name: str, element: ElementTree.Element, path: str) -> float:
    text = _inside(name, element, path)
    try:
        return float(text)
    except ValueError:
        raise WrongAnnotations(f'{name} has "{text[:40]}" as {path}; allowed: a number') from None


def _side(name: str, tree: ElementTree.Element, path: str, least: int) -> int:
    text = (tree.findtext(path) or "").strip()
    if not text.isdecimal() or int(text) < least:
        raise WrongAnnotations(f'{name} has "{text[:40]}" as {path}; allowed: pixels, from {least}')
    return int(text)


# ── YOLO ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_yolo(
    files: Mapping[str, str | None], sizes: Mapping[str, tuple[int, int]], names: Sequence[str]
) -> BoxAnnotations:
    """The boxes of text files, with a line `class x y width height` for each box: its class by number, its centre and
    its sides as shares of the image.

    Args:
        files: by the file of each image, the text of its boxes; None or empty for an image without any.
        sizes: height and width of each image. names: of the classes.

    Raises:
        WrongAnnotations: a line is no box, or its class is not among the names.
    """
    found = _Collected(list(files), [sizes[name] for name in files], names)
    for image, (name, text) in enumerate(files.items()):
        height, width = sizes[name]
        for number, line in enumerate((text or "").splitlines(), 1):
            if not line.strip():
                continue
            try:
                label, x, y, wide, tall = map(float, line.split())
            except ValueError:
                allowed = "allowed: class x y width height, five numbers"
                raise WrongAnnotations(f'line {number} for {name} is "{line.strip()[:60]}"; {allowed}') from None
            if not label.is_integer() or not 0 <= label < len(names):
                allowed = f"allowed: whole numbers from 0 to {len(names) - 1}"
                raise WrongAnnotations(f"line {number} for {name} has the class {label:g}; {allowed}")
            if max(abs(x), abs(y), abs(wide), abs(tall)) > 2:
                raise WrongAnnotations(
                    f"line {number} for {name} has sides in pixels; allowed: shares of the image, 0 to 1"
                )
            sides = (x - wide / 2) * width, (y - tall / 2) * height, (x + wide / 2) * width, (y + tall / 2) * height
            found.add(image, (int(label), *sides), f"line {number}")
    return found.done()
