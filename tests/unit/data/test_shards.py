"""Parquet files as other programs write them: empty shards, nulls, splits by name, class names that are there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lehr.data.load import OpenedSources
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, from_dict

from .conftest import image_of, png, write_parquet


def opened(path: Path, **data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {"source": "parquet", "path": str(path), **data}})
    assert isinstance(job, TrainJob)
    return OpenedSources(job)


@pytest.mark.parametrize("empty", ["a", "n", "z"])
def test_empty_shards_and_what_spark_leaves_beside_them_are_no_rows(tmp_path: Path, empty: str) -> None:
    write_parquet(tmp_path / "m.parquet", range(7))
    write_parquet(tmp_path / "o.parquet", range(7, 12))
    whole = write_parquet(tmp_path / f"{empty}.parquet", range(1))
    with pq.ParquetWriter(whole, schema := pq.read_schema(whole)):
        pass  # no row group at all
    with pq.ParquetWriter(tmp_path / f"{empty}0.parquet", schema) as writer:
        writer.write_table(schema.empty_table())
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "_metadata").write_bytes(b"PAR1")
    (tmp_path / "_temporary/0").mkdir(parents=True)
    (tmp_path / "_temporary/0/half.parquet").write_bytes(b"PAR1")
    (tmp_path / ".m.parquet.crc").touch()
    found = opened(tmp_path)
    assert found.shape == (8, 8, 3)
    assert found.notes == ()
    for rows in (found.decode()["train"], found.stream(ThreadDecoder(1))["train"]):
        assert len(rows) == 12
        assert np.array_equal(rows.labels, np.arange(12) % 3)
    with pytest.raises(JobError, match="has no rows"):
        opened(tmp_path / f"{empty}.parquet")


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.int64()], ids=str)
def test_a_label_that_is_null_is_named_and_refused_whatever_its_type(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array([0, 1, None, 0, None, 1], kind)
    table = pa.table({"image": [png(row) for row in range(6)], "label": labels})
    pq.write_table(table.replace_schema_metadata({"classes": "a,b,c"}), tmp_path / "set.parquet")
    said = rf"{tmp_path}/set\.parquet row 2 has no label \(null\), and so have 2 of 6 rows"
    for data in ({}, {"cache": "stream"}):
        found = opened(tmp_path / "set.parquet", **data)
        with pytest.raises(LehrError, match=said):
            found.stream(ThreadDecoder(1)) if data else found.decode()
    kept = opened(tmp_path / "set.parquet", classes=["a", "b"]).decode()["train"]
    assert kept.labels.tolist() == [0, 1, 0, 1]  # rows of other classes, or of none, are not asked for
    again = table.set_column(1, "label", pa.array([0, 1, 0, 0, 1, 1], kind))
    pq.write_table(again.replace_schema_metadata({"classes": "a,b"}), tmp_path / "set.parquet")
    assert opened(tmp_path / "set.parquet").decode()["train"].labels.tolist() == [0, 1, 0, 0, 1, 1]


def test_a_label_outside_the_classes_is_named_before_it_is_looked_up(tmp_path: Path) -> None:
    table = pa.table({"image": [png(row) for row in range(4)], "label": pa.array([0, 1, 7, 1], pa.uint64())})
    pq.write_table(table.replace_schema_metadata({"classes": "a,b"}), tmp_path / "set.parquet")
    with pytest.raises(LehrError, match=r"set\.parquet row 2 has label 7; allowed: 0 to 1"):
        opened(tmp_path / "set.parquet", classes=["b", "a"])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_an_image_that_is_null_is_unreadable_and_counted(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"image": pa.array([None, png(1), png(2), png(3)], kind), "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({"classes": "a,b"}), tmp_path / "set.parquet")
    assert opened(tmp_path / "set.parquet", skip_unreadable="30%").decode()["train"].unreadable == (0,)
    with pytest.raises(LehrError, match=r"1 of 4 images are unreadable.*row 0 \(the row has no image\)"):
        opened(tmp_path / "set.parquet").decode()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("cat,cat", "several classes of the same name: cat; allowed: different names"),
        ('["a","b","a"]', "several classes of the same name: a"),
        ("cat,,dog", "its class number 1 has an empty name"),
    ],
)
def test_class_names_are_names_and_different(tmp_path: Path, classes: str, said: str) -> None:
    table = pa.table({"image": [png(0), png(1)], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({"classes": classes}), tmp_path / "set.parquet")
    with pytest.raises(JobError, match=said):
        opened(tmp_path / "set.parquet")


def test_class_names_are_different_from_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from lehr.data import sources

    form = sources.opener(sources.SourceForm("digits", path="none"))
    monkeypatch.setattr(
        sources, "opener", lambda _: lambda *given: replace(form(*given), classes=("0", "1", *"00234567"))
    )
    with pytest.raises(JobError, match=r"data\.source: digits: it has several classes of the same name: 0"):
        OpenedSources(from_dict({"kind": "train"}))  # type: ignore[arg-type]


# ── splits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        ("train/0.parquet", "train/1.parquet", "test/0.parquet"),
        ("Training/a/0.parquet", "Training/b/1.parquet", "TESTING/0.parquet"),
    ],
)
def test_files_are_splits_by_their_names_or_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / name, range(number * 5, number * 5 + 5))
    found = opened(tmp_path)
    assert {name: source.rows for name, source in found.sources.items()} == {"train": 10, "test": 5}


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.parquet", "test/0.parquet", "extra/0.parquet"),
        ("train/0.parquet", "test/0.parquet", "all.parquet"),
        ("train-0.parquet", "test-0.parquet", "part-0.parquet"),
        ("val/0.parquet", "test/0.parquet"),
        ("train/0.parquet", "val/0.parquet", "dev/0.parquet"),
    ],
)
def test_test_rows_are_never_trained_on_unsaid(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / name, range(number * 5, number * 5 + 5))
    with pytest.raises(JobError, match=r"has Parquet files of the splits .*; allowed: one folder for each of train"):
        opened(tmp_path)


def test_files_of_one_split_alone_are_its_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", range(6))
    write_parquet(tmp_path / "test-1.parquet", range(6, 9))
    (tmp_path / "README.md").write_text("about")
    found = opened(tmp_path)
    assert [*found.sources] == ["train"]
    assert found.main.rows == 9
    assert found.notes == (f"1 file left out of {tmp_path}: 1 .md",)


def test_links_add_no_rows(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set/a.parquet", range(9))
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/b.parquet").symlink_to("a.parquet")
    assert opened(tmp_path / "set").main.rows == 9


# ── raw pixels of other types ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_raw_pixels_have_the_type_that_the_metadata_name(tmp_path: Path, dtype: str) -> None:
    scale = {"uint8": 1, "uint16": 257, "float32": np.float32(1 / 255)}[dtype]
    images = [(image_of(row) * np.asarray(scale)).astype(dtype) for row in range(6)]
    table = pa.table({"image": [each.tobytes() for each in images], "label": [row % 2 for row in range(6)]})
    metadata = {"classes": "a,b", "shape": "8,8,3", **({} if dtype == "uint8" else {"dtype": dtype})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "raw.parquet", row_group_size=4)
    found = opened(tmp_path / "raw.parquet")
    for rows in (found.decode()["train"],):
        assert all((rows.pixels[row] == image_of(row)).all() for row in range(6))
    table = table.replace_schema_metadata({**metadata, "dtype": "complex64"})
    pq.write_table(table, tmp_path / "raw.parquet")
    with pytest.raises(JobError, match='has the dtype "complex64" in its metadata; allowed: uint8, bool, uint16'):
        opened(tmp_path / "raw.parquet")
