"""Boxes from three forms of annotation are the same boxes; what is no annotation is refused with one sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lehr.data.annotations import BoxAnnotations, WrongAnnotations, read_coco, read_voc, read_yolo

BOXES = {"a.jpg": [("cat", 10, 20, 30, 60), ("dog", 0, 0, 100, 50)], "b.jpg": [], "c.jpg": [("dog", 5, 5, 6, 7)]}
HEIGHT, WIDTH = 80, 100


def coco(**changes: Any) -> bytes:
    images: list[dict[str, Any]] = [
        {"id": 7 * number + 3, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in enumerate(BOXES)
    ]
    categories = [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}]
    ids = {"dog": 90, "cat": 4}
    annotations = [
        {"id": k, "image_id": image["id"], "category_id": ids[name], "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
        for image in images
        for k, (name, x0, y0, x1, y1) in enumerate(BOXES[str(image["file_name"])])
    ]
    whole: dict[str, Any] = {"images": images, "categories": categories, "annotations": annotations}
    for key, change in changes.items():
        change(whole[key])
    return json.dumps(whole).encode()


def voc(name: str, boxes: Any = None, size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>") -> bytes:
    given = BOXES[name] if boxes is None else boxes
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, x0, y0, x1, y1 in given
    )
    return f"<annotation><filename>{name}</filename><size>{size}</size>{objects}</annotation>".encode()


def yolo(name: str) -> str:
    lines = [
        f"{('cat', 'dog').index(label)} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} "
        f"{(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}"
        for label, x0, y0, x1, y1 in BOXES[name]
    ]
    return "\n".join(lines)


def seen(found: BoxAnnotations) -> dict[str, list[Any]]:
    return {
        name: [(found.names[int(label)], *np.round(sides, 9).tolist()) for label, *sides in found.boxes.row(number)]
        for number, name in enumerate(found.files)
    }


def test_the_same_boxes_are_read_from_all_three_forms() -> None:
    wanted = {name: [(label, *map(float, sides)) for label, *sides in boxes] for name, boxes in BOXES.items()}
    sizes = dict.fromkeys(BOXES, (HEIGHT, WIDTH))
    for found in (
        read_coco(coco()),
        read_voc({f"{name[0]}.xml": voc(name) for name in BOXES}),
        read_yolo({name: yolo(name) or None for name in BOXES}, sizes, ["cat", "dog"]),
    ):
        assert seen(found) == wanted
        assert found.names == ("cat", "dog")  # in the order of their ids, 4 and 90
        assert found.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
        assert found.notes == ()


def test_boxes_are_clipped_and_what_is_none_is_left_out_and_told() -> None:
    odd = [("cat", -10, -5, 30, 200), ("cat", 40, 40, 40, 60), ("cat", 60, 60, 50, 70), ("dog", 200, 10, 300, 20)]
    found = read_voc({"a.xml": voc("a.jpg", odd)})
    assert seen(found) == {"a.jpg": [("cat", 0.0, 0.0, 30.0, 80.0)]}
    assert found.notes == (
        "2 boxes without area are left out: a.jpg",
        "1 box outside of their image is left out: a.jpg",
    )


def test_a_set_that_counts_pixels_from_one_is_shifted() -> None:
    found = read_voc({"a.xml": voc("a.jpg", [("cat", 1, 1, 10, 10)])}, from_one=True)
    assert seen(found) == {"a.jpg": [("cat", 0.0, 0.0, 10.0, 10.0)]}


def test_crowds_and_difficult_ones_are_marked() -> None:
    assert read_coco(coco(annotations=lambda each: each[1].update(iscrowd=1))).crowd.tolist() == [False, True, False]
    marked = voc("a.jpg").replace(b"<difficult>0", b"<difficult>1", 1)
    assert read_voc({"a.xml": marked}).crowd.tolist() == [True, False]


def first(**values: Any) -> Any:
    return lambda entries: entries[0].update(values)


MALFORMED: dict[str, tuple[Any, str]] = {
    "no JSON": (lambda: read_coco(b"{'images': []"), r"it is no JSON: Expecting property name"),
    "not UTF-8": (lambda: read_coco(b'{"images": "\xff\xfe"}'), r"it is not in UTF-8; allowed: JSON in UTF-8"),
    "a list": (lambda: read_coco(b"[]"), r'it has no list "images"; allowed: COCO JSON'),
    "an image twice": (
        lambda: read_coco(coco(images=lambda each: each.append({**each[0], "id": 99}))),
        r"the image a.jpg is there twice",
    ),
    "an id twice": (
        lambda: read_coco(coco(images=lambda each: each[1].update(id=3))),
        r"the id 3 is that of more than one",
    ),
    "no such image": (
        lambda: read_coco(coco(annotations=first(image_id=1))),
        r"annotation 0 is of image 1, which is not among the images",
    ),
    "no such category": (
        lambda: read_coco(coco(annotations=first(category_id=1))),
        r"annotation 0 has category 1, which is not among the categories",
    ),
    "NaN": (lambda: read_coco(coco(annotations=first(bbox=[1, 2, float("nan"), 4]))), r"has a side that is no finite"),
    "three sides": (
        lambda: read_coco(coco(annotations=first(bbox=[1, 2, 3]))),
        r"the bbox \[1, 2, 3\]; allowed: \[x, y",
    ),
    "no width": (lambda: read_coco(coco(images=first(width=0))), r"the image a.jpg has the width 0; allowed: from 1"),
    "an open tag": (lambda: read_voc({"a.xml": b"<annotation><size>"}), r"a.xml is no XML: no element found"),
    "entities": (lambda: read_voc({"a.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>"}), r"declares entities"),
    "another root": (lambda: read_voc({"a.xml": b"<html/>"}), r"begins with <html>; allowed: <annotation>"),
    "no size": (lambda: read_voc({"a.xml": voc("a.jpg", size="")}), r'a.xml has "" as size/height; allowed: pixels'),
    "words as sides": (
        lambda: read_voc({"a.xml": voc("a.jpg", [("cat", "left", 1, 2, 3)])}),
        r'has "left" as bndbox/xmin',
    ),
    "another class": (lambda: read_voc({"a.xml": voc("a.jpg")}, ["dog"]), r"it has the class cat; allowed: dog"),
    "four numbers": (
        lambda: read_yolo({"a": "0 0.5 0.5 0.1"}, {"a": (8, 8)}, ["cat"]),
        r'line 1 for a is "0 0.5 0.5 0.1"; allowed: class x y width height',
    ),
    "class beyond": (
        lambda: read_yolo({"a": "1 .5 .5 .1 .1"}, {"a": (8, 8)}, ["cat"]),
        r"has the class 1; allowed: whole",
    ),
    "pixels": (lambda: read_yolo({"a": "0 5 5 4 4"}, {"a": (8, 8)}, ["cat"]), r"sides in pixels; allowed: shares"),
    "no image": (lambda: read_yolo({}, {}, ["cat"]), r"there is no image in it"),
}


@pytest.mark.parametrize(("call", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_annotation_is_refused_with_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(WrongAnnotations, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)
