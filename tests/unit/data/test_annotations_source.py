"""Images with boxes are read as tools write them; what is in the way is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.coco import write_coco

from lehr.data.annotations import read_coco
from lehr.data.labels import Ragged
from lehr.data.load import OpenedSources, splits
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.data.sources.digits_canvas import canvases, drawn
from lehr.errors import JobError, LehrError
from lehr.job import DataSection, TrainJob, from_dict
from lehr.tasks.forms import LabelKind


def opened(path: Path | str, kind: LabelKind = "boxes", **about: Any) -> Source:
    section = DataSection.model_validate({"source": "annotations", "path": str(path), **about})
    return open_source(section, lambda field, what: JobError(what, field=field), kind)


def job(path: Path, **data: Any) -> TrainJob:
    whole = {"kind": "train", "task": "detection", "data": {"source": "annotations", "path": str(path), **data}}
    found = from_dict(whole)
    assert isinstance(found, TrainJob)
    return found


def labels(source: Source) -> Ragged:
    found = source.labels()
    assert isinstance(found, Ragged)
    return found


def write_voc(folder: Path, coco: Path, *, lists: bool = True) -> None:
    """The same data set as Pascal VOC."""
    for each in ("Annotations", "ImageSets/Main"):
        (folder / each).mkdir(parents=True)
    (coco / "images").rename(folder / "JPEGImages")
    for split in ("train", "val"):
        read = read_coco((coco / f"instances_{split}.json").read_bytes())
        names = []
        for row, file in enumerate(read.files):
            height, width = read.sizes[row]
            objects = "".join(
                f"<object><name>{read.names[int(c)]}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
                f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
                for c, x0, y0, x1, y1 in read.boxes.row(row)
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>1</depth></size>"
            stem = file.partition(".")[0]
            text = f"<annotation><filename>renamed.jpg</filename>{size}{objects}</annotation>"
            (folder / "Annotations" / f"{stem}.xml").write_text(text)
            names.append(stem)
        if lists:
            (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))


def write_yolo(folder: Path, coco: Path) -> None:
    """The same data set as YOLO text, in `images/SPLIT` and `labels/SPLIT`."""
    for split in ("train", "val"):
        read = read_coco((coco / f"instances_{split}.json").read_bytes())
        for each in ("images", "labels"):
            (folder / each / split).mkdir(parents=True)
        for row, file in enumerate(read.files):
            (coco / "images" / file).rename(folder / "images" / split / file)
            height, width = read.sizes[row]
            lines = [
                f"{int(c)} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width} {(y1 - y0) / height}"
                for c, x0, y0, x1, y1 in read.boxes.row(row)
            ]
            (folder / "labels" / split / f"{file.partition('.')[0]}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"names: {json.dumps([str(number) for number in range(10)])}\nnc: 10\n")


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_three_forms_of_one_data_set_give_the_same_boxes_splits_and_classes(form: str, tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco", {"train": 40, "val": 5})
    wanted = opened(coco)
    truth = {"train": labels(wanted), "validation": labels(wanted.other_splits["validation"])}
    folder = tmp_path / form
    if form == "voc":
        write_voc(folder, coco)
    elif form == "yolo":
        write_yolo(folder, coco)
    found = opened(folder)
    assert found.classes == tuple(str(number) for number in range(10))
    others = {split: source.rows for split, source in found.other_splits.items()}
    assert (found.rows, others) == (40, {"validation": 5})
    for split, source in (("train", found), ("validation", found.other_splits["validation"])):
        assert np.allclose(labels(source).values, truth[split].values, atol=1e-9)
        assert np.array_equal(labels(source).starts, truth[split].starts)
        table = source.parts[0].read([2, 1])
        assert len(table["image"][0].as_py()) > 50
    if form == "coco":
        assert np.array_equal(truth["train"].values, canvases("train")[1][:40].values)


def test_a_json_file_alone_finds_its_images_below_or_above(tmp_path: Path) -> None:
    write_coco(tmp_path / "set", {"train": 4})
    assert opened(tmp_path / "set" / "instances_train.json").rows == 4
    (tmp_path / "set" / "annotations").mkdir()
    moved = tmp_path / "set" / "annotations" / "instances_train.json"
    (tmp_path / "set" / "instances_train.json").rename(moved)
    assert opened(moved).parts[0].name(0).endswith("set/images/train000.png")
    assert opened(tmp_path / "set").rows == 4


def test_boxes_go_into_the_letterbox_with_the_image(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 6, "val": 2}, wide=128)
    sources = OpenedSources(job(folder, image_size=[48, 64]))
    images = sources.decode()["train"]
    assert images.pixels.shape[1:3] == (48, 64)
    assert (images.pixels[:, 32:] == 114).all()  # the image is twice as wide as it is high
    assert np.allclose(images.labels.values[:, 1:5], canvases("train")[1][:6].values[:, 1:5] / 2)
    x0, y0, x1, y1 = (round(side) for side in images.labels.values[0, 1:5])
    assert images.pixels[0, y0:y1, x0:x1].mean() > 1.5 * images.pixels[0, :32].mean()


def test_classes_are_chosen_and_the_boxes_of_others_left_out(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 12, "val": 4})
    chosen = OpenedSources(job(folder, classes=["7", "3"]))
    values = labels(chosen.main).values
    every = canvases("train")[1][:12].values
    assert len(chosen.main.parts[0].labels()) == 12
    assert [("7", "3")[int(k)] for k in values[:, 0]] == [str(int(k)) for k in every[:, 0] if int(k) in (3, 7)]


def test_the_classes_of_boxes_are_several_classes_a_row(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 5})
    found = opened(folder, "classes")
    boxes = canvases("train")[1]
    for row, there in enumerate(found.labels()):
        assert set(np.flatnonzero(there)) == set(boxes.row(row)[:, 0].astype(int))
    with pytest.raises(JobError, match="its rows have boxes; allowed: task: detection, or task: multilabel"):
        opened(folder, "class")


def test_rows_are_split_by_chance_where_no_split_is_named(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 20})
    opening = OpenedSources(job(folder))
    made = splits(job(folder), opening.decode())
    assert (len(made.train), len(made.validation)) == (16, 4)


def break_sizes(folder: Path) -> None:
    Image.new("L", (64, 32)).save(folder / "images" / "train001.png")


def move_twice(folder: Path, name: str) -> None:
    for other in ("a", "b"):
        (folder / other).mkdir()
        (folder / other / name).write_bytes((folder / "images" / name).read_bytes())
    (folder / "images" / name).unlink()


def change_json(folder: Path, change: Any, name: str = "instances_train.json") -> None:
    whole = json.loads((folder / name).read_text())
    change(whole)
    (folder / name).write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: [each.unlink() for each in (f / "images").iterdir()], r"none of its images is there, such as train"),
        (lambda f: (f / "instances_train.json").write_text("{"), r"instances_train.json: it is no JSON"),
        (lambda f: change_json(f, lambda w: w.pop("categories")), r'it has no list "categories"'),
        (
            lambda f: (f / "instances_train2.json").write_text((f / "instances_train.json").read_text()),
            r"several JSON files are of one split, instances_train.json, instances_train2.json, inst.*; allowed: train",
        ),
        (
            lambda f: change_json(f, lambda w: w["annotations"][0].update(bbox=[1, 2])),
            r"has the bbox \[1, 2\]; allowed: \[x, y, width, height\]",
        ),
        (
            lambda f: move_twice(f, "train000.png"),
            r"there are several images train000.png, in a, b; allowed: one of each name",
        ),
        (
            lambda f: (f / "instances_train.json").rename(f / "instances_test.json"),
            r"it has annotations for test, validation, and none to train on",
        ),
        (lambda f: [each.unlink() for each in f.glob("*.json")], r"6 files, none of which is an annotation; allowed"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_a_sentence(spoil: Any, said: str, tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 4, "val": 2})
    spoil(folder)
    with pytest.raises(JobError, match=said) as raised:
        opened(folder)
    assert str(raised.value).count("\n") == 0


def test_an_image_of_another_size_than_its_annotations_is_told_before_it_is_learned(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", {"train": 4})
    break_sizes(folder)
    with pytest.raises(LehrError, match=r"train001.png has 64 × 32 pixels .* its annotations are for 64 × 64; its box"):
        OpenedSources(job(folder, image_size=64)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"YOLO text has classes by number, and no file names them; allowed: data.yaml with a list names"),
        ("names: 3", r"data.yaml: names is 3; allowed: a list"),
        ("names: [a]", r"has the class [1-9]; allowed: whole numbers from 0 to 0"),
        ("names: [a]\ntrain: train.txt", r"data.yaml lists the images of train in a text file; allowed: folders"),
        ("names: {0: a, 2: b}", r"names is .*; allowed: a list, or 0: NAME"),
    ],
)
def test_what_yolo_lacks_is_told(text: str | None, said: str, tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", write_coco(tmp_path / "coco", {"train": 3, "val": 2}))
    file = tmp_path / "yolo" / "data.yaml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(JobError, match=said):
        opened(tmp_path / "yolo")


def test_a_canvas_is_a_function_of_its_row_and_shows_other_digits_for_validation() -> None:
    section = DataSection.model_validate({"source": "digits_canvas"})
    first = open_source(section, lambda field, what: JobError(what, field=field), "boxes")
    part = first.parts[0]
    again = drawn.__wrapped__("train")
    assert first.rows == 1200
    assert part.read([5])["image"][0].as_py() == again[0][5].tobytes()
    values = labels(first).values
    assert (values[:, 3:5] - values[:, 1:3] >= 3).all()
    assert ((values[:, 1:5] >= 0) & (values[:, 1:5] <= 64)).all()
    assert set(np.unique(values[:, 0])) == set(range(10))


@pytest.mark.parametrize("turned", [True, False])
def test_boxes_are_of_images_as_they_are_shown(turned: bool, tmp_path: Path) -> None:
    """A phone stores a picture on its side and says so: annotations of the stored pixels would be elsewhere."""
    folder = write_coco(tmp_path / "set", {"train": 3}, wide=96)
    for file in (folder / "images").iterdir():
        with Image.open(file) as image:
            stored, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
        exif[0x0112] = 6 if turned else 1
        stored.save(file, exif=exif)
    sources = OpenedSources(job(folder, image_size=[64, 96]))
    if not turned:
        with pytest.raises(LehrError, match=r"has 64 × 96 pixels as it is shown, and its annotations are for 96 × 64"):
            sources.decode()
        return
    images = sources.decode()["train"]
    for row in range(3):
        for _, x0, y0, x1, y1, _ in images.labels.row(row).astype(int):
            assert images.pixels[row, y0:y1, x0:x1].mean() > 60
