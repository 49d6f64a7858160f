"""Captions are read from what annotation tools and tables write; what is wrong with them is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.coco import write_captions, write_coco

from lehr.data.captions import read_captions
from lehr.data.sources import Source, open_source
from lehr.data.sources.digits_canvas import canvases, caption_of
from lehr.errors import JobError
from lehr.job import DataSection
from lehr.tasks.caption_text import from_bytes


def opened(**section: Any) -> Source:
    return open_source(DataSection(**section), lambda field, what: JobError(f"{field}: {what}"), "captions")


def captions(source: Source) -> list[list[str]]:
    return [from_bytes(row) for row in source.labels()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_captions(tmp_path / "set", {"train": 6, "val": 3}, several=True)


def test_a_row_is_an_image_with_all_its_captions(folder: Path) -> None:
    for section in ({"source": "annotations"}, {}):
        source = opened(path=str(folder), **section)
        assert source.rows == 6
        assert source.other_splits["validation"].rows == 3
        boxes = canvases("train")[1]
        first = [caption_of(boxes.row(row)) for row in range(6)]
        assert [row[0] for row in captions(source)] == first
        assert [len(row) for row in captions(source)] == [1, 2, 1, 2, 1, 2]
        assert source.image_ids == (10, 11, 12, 13, 14, 15)
    assert source.notes[0].startswith("set: COCO captions JSON, rows: 6 to train, 3 for validation")
    assert source.notes[0].endswith("captions, 1 to 2 of each image")


def test_one_file_is_all_rows(folder: Path) -> None:
    source = opened(path=str(folder / "captions_val.json"))
    assert source.rows == 3
    assert not source.other_splits


def test_digits_on_a_canvas_are_told_from_left_to_right() -> None:
    source = opened(source="digits_canvas")
    said = captions(source)
    assert source.rows == 1200
    assert said[:3] == [[caption_of(canvases("train")[1].row(row))] for row in range(3)]
    words = {word for [each] in said for word in each.split()}
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert words == {"a", "an", "left", "of", "above", "below", *digits}


def lines(folder: Path, text: str, name: str = "captions.csv") -> dict[str, Any]:
    (folder / name).write_text(text)
    return {"path": str(folder / name)}


def as_csv(folder: Path) -> dict[str, Any]:
    return lines(
        folder, 'image,caption\nimages/train000.png,"A dog, red"\nimages/train001.png,b c\nimages/train000.png,d\n'
    )


def as_tsv(folder: Path) -> dict[str, Any]:
    said = "file\tsentence\nimages/train000.png\tA dog, red\nimages/train001.png\tb c\nimages/train000.png\td\n"
    return lines(folder, said, "all.tsv")


def as_json_lines(folder: Path) -> dict[str, Any]:
    rows = [("images/train000.png", ["A dog, red", "d"]), ("images/train001.png", ["b c"])]
    said = "".join(json.dumps({"file_name": file, "text": text}) + "\n" for file, text in rows)
    return lines(folder, said, "metadata.jsonl")


def as_parquet(folder: Path) -> dict[str, Any]:
    images = [(folder / "images" / f"train00{k}.png").read_bytes() for k in range(2)]
    table = pa.table({"image": images, "says": [["A dog, red", "d"], ["b c"]]})
    pq.write_table(table, folder / "rows.parquet")
    return {"path": str(folder / "rows.parquet"), "columns": {"label": "says"}}


@pytest.mark.parametrize("make", [as_csv, as_tsv, as_json_lines, as_parquet])
def test_a_column_of_text_is_captions(make: Callable[[Path], dict[str, Any]], folder: Path) -> None:
    source = opened(**make(folder))
    assert captions(source) == [["A dog, red", "d"], ["b c"]]
    assert len(source.parts[0].read()) == 2


def test_lines_of_an_image_are_of_one_split(folder: Path) -> None:
    rows = "file,caption,split\nimages/train000.png,a,train\nimages/train001.png,b,validation\n"
    source = opened(**lines(folder, f"{rows}images/train000.png,c,train\n"))
    assert captions(source) == [["a", "c"]]
    assert captions(source.other_splits["validation"]) == [["b"]]
    with pytest.raises(JobError, match=r"has lines of images/train000.png in several splits; allowed: all lines of"):
        opened(**lines(folder, f"{rows}images/train000.png,c,validation\n"))


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "captions_train.json"
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    return path


def edit(number: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole["annotations"][number].update(values)


MALFORMED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (edit(0, image_id=99), "annotation 1 is of image 99, which is not among the images"),
    (edit(0, image_id=None), "annotation 1 has the image_id None; allowed: a whole number"),
    (edit(0, caption=None), "annotation 1 has the caption None; allowed: text"),
    (edit(0, caption=["a", "b"]), r"annotation 1 has the caption \['a', 'b'\]; allowed: text"),
    (edit(1, id=1), "the id 1 is that of more than one annotation; allowed: different ids"),
    (lambda whole: whole["images"][1].update(id=10), "the id 10 is that of more than one image; allowed: different"),
    (lambda whole: whole["images"][1].update(file_name="train000.png"), "the image train000.png is there twice"),
    (lambda whole: whole.pop("images"), 'it has no list "images"; allowed: COCO captions JSON'),
    (lambda whole: [each.update(caption=" ... ") for each in whole["annotations"]], "none of its images has a caption"),
    (
        lambda whole: [each.update(file_name=f"no{k}.png") for k, each in enumerate(whole["images"])],
        "none of its images is there, such as no0.png; allowed: images below the folder",
    ),
]


@pytest.mark.parametrize(("change", "said"), MALFORMED)
def test_malformed_captions_are_one_sentence(
    change: Callable[[dict[str, Any]], object], said: str, folder: Path
) -> None:
    path = changed(folder, change)
    with pytest.raises(JobError, match=said) as refused:
        opened(source="annotations", path=str(path))
    assert "\n" not in str(refused.value)


def test_captions_without_words_and_missing_images_are_told_and_left_out(folder: Path) -> None:
    changed(folder, edit(0, caption=" "))
    changed(folder, edit(1, caption="?!"))
    (folder / "images" / "train005.png").unlink()
    source = opened(source="annotations", path=str(folder))
    assert source.rows == 5
    assert [len(row) for row in captions(source)] == [1, 1, 2, 1, 2]
    assert source.notes == (
        "2 captions have no word and are left out",
        "1 of 6 images have no caption and are left out",
        "1 of 5 images are not there: train005.png",
    )


def test_files_that_are_no_captions_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    boxes = write_coco(tmp_path / "boxes", {"train": 2})
    with pytest.raises(
        JobError, match="annotation 1 has a box and no caption; allowed: the file with captions, or task"
    ):
        opened(source="annotations", path=str(boxes / "instances_train.json"))
    with pytest.raises(JobError, match="it has no JSON file with captions; allowed: COCO captions JSON, or a table"):
        opened(source="annotations", path=str(boxes))
    path = folder / "captions_train.json"
    path.write_bytes(path.read_bytes().replace(b"left", b"l\xffft"))
    with pytest.raises(JobError, match="it is not in UTF-8; allowed: JSON in UTF-8"):
        opened(source="annotations", path=str(path))
    path.write_text('{"images": [')
    with pytest.raises(JobError, match="it is no JSON"):
        opened(source="annotations", path=str(path))


def test_rows_of_another_kind_are_no_captions(folder: Path) -> None:
    with pytest.raises(
        JobError, match="its rows have no captions, which captioning learns; allowed: COCO captions JSON"
    ):
        opened(source="digits")
    section = DataSection(source="annotations", path=str(folder))
    with pytest.raises(JobError, match="it has 11 files, none of which is an annotation"):
        open_source(section, lambda field, what: JobError(f"{field}: {what}"), "boxes")
    with pytest.raises(JobError, match=r"has no word in caption; allowed: captions"):
        opened(**lines(folder, "file,caption\nimages/train000.png,..\n"))
    with pytest.raises(JobError, match=r"has a column caption of type int64; allowed: text, or lists of texts"):
        opened(**lines(folder, "file,caption\nimages/train000.png,3\n"))
    with pytest.raises(
        JobError, match=r"has no column caption or text; its columns are file, a, b; type data.columns.label"
    ):
        opened(**lines(folder, "file,a,b\nimages/train000.png,x,y\n"))


def test_unicode_in_captions_stays_as_it_is() -> None:
    whole = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "caption": "Ein Müller\nund 犬"}],
    }
    assert read_captions(json.dumps(whole, ensure_ascii=False).encode()).captions == (("Ein Müller und 犬",),)
