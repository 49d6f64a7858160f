"""A table with a line for each image is read as it is meant, or refused with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lehr.data.pixels import PixelFormat
from lehr.data.reading import read
from lehr.data.sources import Source, open_source
from lehr.errors import JobError, LehrError
from lehr.job import from_dict


@pytest.fixture(autouse=True)
def _images(tmp_path: Path) -> None:
    (tmp_path / "im").mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"im/{number}.png")


def table(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def opened(path: Path, kind: Any, labels: str | list[str] | None = None) -> Source:
    data = {"source": "table", "path": str(path), **({"columns": {"label": labels}} if labels else {})}
    job = from_dict({"kind": "train", "data": data})
    return open_source(job.data, lambda field, what: JobError(what, field=field), kind)  # type: ignore[attr-defined]


WHOLE = (
    "file,age,height,tags,cat,dog,split\nim/0.png,1,1.5,cat|dog,1,1,train\nim/1.png,2,,,0,0,train\n"
    "im/2.png,3,1.7,dog ; owl,0,1,val\n"
)


def test_numbers_classes_and_splits_stand_in_columns(tmp_path: Path) -> None:
    path = table(tmp_path, WHOLE)
    ages = opened(path, "numbers", "age")
    assert (ages.classes, ages.labels().tolist()) == (("age",), [[1.0], [2.0]])
    assert ages.other_splits["validation"].labels().tolist() == [[3.0]]
    tags = opened(path, "classes", "tags")
    assert tags.classes == ("cat", "dog", "owl")
    assert tags.labels().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert opened(path, "classes", ["cat", "dog"]).labels().tolist() == [[1, 1], [0, 0]]
    decoded = read(tags, PixelFormat(channels=3))
    assert decoded.pixels.shape == (2, 8, 8, 3)
    assert np.array_equal(decoded.labels, tags.labels())
    assert tags.name_of(1) == f"{tmp_path}/im/1.png"


def test_a_parquet_table_may_hold_lists(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "file": ["im/0.png", "im/1.png"],
        "labels": [[0.5, 1.0], [2.0, 3.0]],
        "tags": [["b", "a"], []],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert opened(tmp_path / "t.parquet", "numbers").classes == ("labels_0", "labels_1")
    assert opened(tmp_path / "t.parquet", "classes", "tags").labels().tolist() == [[1, 1], [0, 0]]


def test_files_that_are_not_there_are_told_and_count_as_unreadable(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\nim/0.png,cat\nim/9.png,dog\n")
    source = opened(path, "class")
    assert source.notes == (f"1 of the 2 files in {path} are not there: im/9.png",)
    with pytest.raises(LehrError, match=r"1 of 2 images are unreadable.*im/9.png"):
        read(source, PixelFormat(channels=3))


def test_a_number_that_is_missing_is_refused_with_the_file_of_its_row(tmp_path: Path) -> None:
    with pytest.raises(LehrError, match=r"im/1.png has no label \(null\), and so have 1 of 2 rows"):
        read(opened(table(tmp_path, WHOLE), "numbers", "height"), PixelFormat(channels=3))


@pytest.mark.parametrize(
    ("text", "kind", "labels", "said"),
    [
        ("name,age\nim/0,1\n", "numbers", "age", r"has no column with the files .* its columns are name, age"),
        ("file,age\n", "numbers", "age", r"has no rows"),
        (
            "file,age\nim/0.png,old\n",
            "numbers",
            "age",
            r'data.columns.label: .* row 1 \(im/0.png\) has "old" in age; allowed: nu',
        ),
        (
            "file,age\nim/0.png,1\n",
            "numbers",
            None,
            r"has no column label or labels; .* type data.columns.label=\[age\]",
        ),
        (
            "file,age\nim/0.png,1\n",
            "numbers",
            "weight",
            r"data.columns.label: .* has no column weight; its columns are file, age",
        ),
        (
            "file,cat\nim/0.png,2\nim/1.png,1\n",
            "classes",
            ["cat", "file"],
            r"data.columns.label: .* 2 in cat; allowed: 1 where",
        ),
        ("file,a,b\nim/0.png,1,2\n", "class", ["a", "b"], r"one class a row stands in one column; type one name"),
        (
            "file,age,split\nim/0.png,1,fold1\n",
            "numbers",
            "age",
            r"row 1 \(im/0.png\) has 'fold1' in its column split; allowed: train",
        ),
        ("file,age,split\nim/0.png,1,test\n", "numbers", "age", r"has no row whose split is train"),
        ("file,age\n,1\n", "numbers", "age", r"row 1 has no file in its column file"),
        (
            "file,age\nim/a,1\nim/b,2\n",
            "numbers",
            "age",
            r"none of its files is there, such as .*im/a; allowed: paths rel",
        ),
        (b"file,age\n\xff\xfe,1\n", "numbers", "age", r"t.csv"),
        ("file,age\nim/0.png,1,7\n", "numbers", "age", r"Expected 2 columns, got 3"),
    ],
)
def test_a_table_that_is_none_is_refused_with_one_sentence(
    tmp_path: Path, text: str | bytes, kind: str, labels: Any, said: str
) -> None:
    with pytest.raises(JobError, match=said) as refused:
        opened(table(tmp_path, text), kind, labels)
    assert "\n" not in str(refused.value)


def test_what_is_no_file_of_a_table_is_refused(tmp_path: Path) -> None:
    for name, said in (("none.csv", "does not exist"), ("im", r"contains no .csv, .* file; .* 6 .png")):
        with pytest.raises(JobError, match=said):
            opened(tmp_path / name, "numbers", "age")
