"""Splits by a column, by file and by group: from tables, Parquet files and folders of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lehr.data.dataset import Splits
from lehr.data.load import OpenedSources, splits
from lehr.data.ray_data import Shared
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict

CLASSES = ("cat", "dog")


def image(number: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4, 3), 5 * (number % 50), np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cat/p3_7.png`: twelve people with one to four photographs each of cats and dogs; and by folder."""
    root = tmp_path_factory.mktemp("photos")
    for label in CLASSES:
        for person in range(12):
            for number in range(1 + person % 4):
                for name in (f"flat/{label}/p{person}_{number}.png", f"deep/{label}/p{person}/{number}.png"):
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    image(person + number).save(root / name)
    return root


@pytest.fixture(scope="module")
def table(photos: Path) -> Path:
    """A table of the photographs, with the person, and a split of its own."""
    lines = ["file,label,person,part,number"]
    for label in CLASSES:
        for path in sorted((photos / "flat" / label).iterdir()):
            person = path.stem.partition("_")[0]
            part = ("training", "val", "Test")[int(person[1:]) % 3]
            lines.append(f"flat/{label}/{path.name},{label},{person},{part},{len(lines)}")
    file = photos / "table.csv"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four Parquet files of 12 rows in two row groups each, with the columns of `table`."""
    root = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        rows = range(12 * shard, 12 * shard + 12)
        columns: dict[str, Any] = {
            "image": [np.full((4, 4, 1), row, np.uint8).tobytes() for row in rows],
            "label": [row % 2 for row in rows],
            "person": pa.array([f"p{row // 3}" for row in rows]).dictionary_encode(),
            "part": [("train", "validation", "test")[row // 3 % 3] for row in rows],
        }
        metadata = {"classes": "cat,dog", "shape": "4,4,1"}
        whole = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(whole, root / f"shard-{shard}.parquet", row_group_size=6)
    return root


def opened(data: Mapping[str, Any], **more: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {**data}, **more})
    assert isinstance(job, TrainJob)
    return OpenedSources(job)


def rows_of(data: Mapping[str, Any], **more: Any) -> tuple[OpenedSources, Splits]:
    found = opened(data, **more)
    return found, splits(found.job, found.decode())


def people(found: OpenedSources, ids: torch.Tensor) -> set[str]:
    names = [found.main.name_of(int(row)) for row in ids]
    return {name.rpartition("/")[2].partition("_")[0] for name in names}


@pytest.mark.parametrize(
    "data",
    [
        {"source": "images", "path": "flat", "group": "(p[0-9]+)_"},
        {"source": "images", "path": "flat", "group": "/([^/_]+)_[0-9]+.png$"},
        {"source": "table", "path": "table.csv", "group": "person", "split": "none"},
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_in_two_splits(data: dict[str, Any], seed: int, photos: Path, table: Path) -> None:
    data = {**data, "path": str(photos / data["path"])}
    found, split = rows_of({**data, "validation": 0.3}, seed=seed)
    training, held_out = (people(found, rows.ids) for rows in (split.train, split.validation))
    assert not training & held_out
    assert len(training | held_out) == 12
    assert abs(len(split.validation) - 0.3 * found.main.rows) <= 2
    dogs = split.validation.labels.double().mean()
    assert abs(dogs - 0.5) < 0.01  # each person has as many cats as dogs
    (note,) = [each for each in found.notes if "data.group" in each]
    assert f"{len(held_out)} of 12 groups validate, {len(split.validation)} of {found.main.rows} rows" in note


def test_a_folder_is_a_group_across_classes(photos: Path) -> None:
    found, split = rows_of({"source": "images", "path": str(photos / "deep"), "group": "folder"})
    names = [
        {found.main.name_of(int(row)).split("/")[-2] for row in rows.ids} for rows in (split.train, split.validation)
    ]
    assert not names[0] & names[1]


@pytest.mark.parametrize("column", ["split", "part"])
def test_a_column_says_the_splits_in_tables_and_parquet_by_usual_names(
    column: str, table: Path, shards: Path, tmp_path: Path
) -> None:
    named = table.parent / f"{column}.csv"
    named.write_text(table.read_text().replace("part", column, 1))
    asked = {} if column == "split" else {"split": "part"}
    found, split = rows_of({"source": "table", "path": str(named), **asked})
    assert set(found.sources) == {"train", "validation", "test"}
    assert people(found, split.train.ids) == {"p0", "p3", "p6", "p9"}
    for shard in shards.iterdir():
        whole = pq.read_table(shard)
        names = [column if name == "part" else name for name in whole.column_names]
        renamed = whole.rename_columns(names).replace_schema_metadata(whole.schema.metadata)
        pq.write_table(renamed, tmp_path / shard.name, row_group_size=6)
    found, split = rows_of({"source": "parquet", "path": str(tmp_path), **asked})
    rows = [found.sources[name].rows for name in ("train", "validation", "test")]
    assert rows == [18, 15, 15]
    pixels = split.train.gather(torch.arange(18)).inputs[:, 0, 0, 0].tolist()
    assert pixels == [row for row in range(48) if row // 3 % 3 == 0]
    assert found.main.name_of(3).endswith("shard-0.parquet row 9")
    assert opened({"source": "parquet", "path": str(tmp_path), "split": "none"}).main.rows == 48


def test_a_column_split_of_other_values_is_told_and_not_used(shards: Path, tmp_path: Path) -> None:
    whole = pq.read_table(shards / "shard-0.parquet").append_column("split", pa.array(list(range(12))))
    pq.write_table(whole, tmp_path / "one.parquet")
    found = opened({"source": "parquet", "path": str(tmp_path)})
    assert found.main.rows == 12
    assert any("column split has other values" in note for note in found.notes)


def test_whole_files_and_groups_of_parquet_files_stay_together(shards: Path) -> None:
    found, split = rows_of({"source": "parquet", "path": str(shards), "group": "file", "validation": 0.25})
    files = [{found.main.name_of(int(row)).partition(" row ")[0] for row in rows.ids} for rows in
             (split.train, split.validation)]  # fmt: skip
    assert [len(each) for each in files] == [3, 1]
    assert not files[0] & files[1]
    found, split = rows_of({"source": "parquet", "path": str(shards), "group": "person", "classes": ["dog", "cat"]})
    persons = [{int(row) // 3 for row in rows.gather(torch.arange(len(rows))).inputs[:, 0, 0, 0]} for rows in
               (split.train, split.validation)]  # fmt: skip
    assert not persons[0] & persons[1]


def test_groups_follow_the_rows_of_chosen_classes(photos: Path, table: Path) -> None:
    data = {"source": "table", "path": str(table), "split": "none", "group": "person"}
    text = table.read_text().splitlines()
    three = table.parent / "three.csv"
    three.write_text("\n".join([*text, *(line.replace(",dog,", ",bird,") for line in text[1:] if ",dog," in line)]))
    found = opened({**data, "path": str(three), "classes": ["bird", "cat"]})
    assert found.main.groups is not None
    assert len(found.main.groups) == found.main.rows
    _, held_out = found.split_ids()
    assert held_out is not None
    training, _ = found.split_ids()
    assert not people(found, training) & people(found, held_out)


@pytest.mark.parametrize("group", [None, "person"])
def test_the_split_is_the_same_streamed_cached_and_on_every_worker(group: str | None, table: Path) -> None:
    data = {"source": "table", "path": str(table), "split": "none", "validation": 0.3} | (
        {"group": group} if group else {}
    )
    found = opened(data)
    cached = found.decode()
    streamed = splits(found.job, found.stream(ThreadDecoder(1)))
    split = splits(found.job, cached)
    assert split.train.ids.tolist() == streamed.train.ids.tolist()
    assert split.validation.ids.tolist() == streamed.validation.ids.tolist()
    _, held_out = found.split_ids()
    assert held_out is not None
    assert split.validation.ids.tolist() == held_out.tolist()


def test_groups_reach_other_processes_with_the_images(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
    found = opened({"source": "table", "path": str(table), "split": "none", "group": "person"})
    images = found.decode()["train"]
    again = Shared.put(images).open()
    assert splits(found.job, {"train": again}).validation.ids.tolist() == found.split_ids()[1].tolist()  # type: ignore[union-attr]


def test_every_row_is_in_one_fold_and_folds_are_alike(table: Path) -> None:
    data = {"source": "table", "path": str(table), "split": "none"}
    for more, most in (({}, 1), ({"group": "person"}, 3), ({"stratify": "none"}, 1)):
        seen: list[int] = []
        sizes = []
        for number in range(1, 5):
            found, split = rows_of({**data, **more, "fold": f"{number}/4"})
            assert not set(split.train.ids.tolist()) & set(split.validation.ids.tolist())
            assert len(split.train) + len(split.validation) == found.main.rows
            seen += split.validation.ids.tolist()
            sizes.append(len(split.validation))
        assert sorted(seen) == list(range(found.main.rows))
        assert max(sizes) - min(sizes) <= most


REFUSED = [
    ({"group": "patient"}, "data.group: .*has no column patient; its columns are file, label, person, part, number"),
    ({"split": "fold"}, "data.split: .*has no column fold"),
    ({"split": "person"}, "row 1 .* has 'p0' in its column person; allowed: train, validation, test"),
    ({"group": "person", "split": "part"}, "data.group: .*has validation rows of its own.*data.split=none"),
    ({"fold": "1/5", "split": "part"}, "data.fold: .*has validation rows of its own"),
    ({"group": "one"}, "data.group: .*one group by one, too few for training and validation"),
    ({"group": "label"}, "label makes each class one group"),
    ({"group": "person", "fold": "1/20"}, "12 groups by person, too few for 20 folds; allowed: folds=12"),
    ({"fold": "1/99"}, "60 rows, fewer than 99 folds; allowed: folds=60"),
    ({"group": "some"}, "row 3 .* belongs to no group; allowed: a value in every row"),
]


@pytest.mark.parametrize(("asked", "told"), REFUSED)
def test_a_split_that_cannot_be_is_refused_in_one_sentence(asked: dict[str, Any], told: str, table: Path) -> None:
    lines = table.read_text().splitlines()
    file = table.parent / "refused.csv"
    some = ["some", *("" if number == 2 else "x" for number in range(len(lines) - 1))]
    file.write_text("\n".join(f"{line},{'one' if not at else 1},{some[at]}" for at, line in enumerate(lines)))
    with pytest.raises(JobError, match=told) as refused:
        opened({"source": "table", "path": str(file), **asked})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"path": "flat", "group": "(x[0-9]+)_"}, r"finds no group in (cat|dog)/p\d+_\d.png"),
        ({"path": "flat", "group": "folder"}, "lies in no folder of its own below its class"),
        ({"path": "flat", "group": "("}, "is not a regular expression"),
        ({"path": "flat", "group": "p[0-9]"}, "has not one pair of parentheses"),
        ({"path": "flat", "split": "part"}, "the source images has no columns"),
    ],
)
def test_groups_of_files_that_cannot_be_are_refused(data: dict[str, Any], told: str, photos: Path) -> None:
    with pytest.raises(JobError, match=told):
        opened({"source": "images", **data, "path": str(photos / data["path"])})


def test_a_group_in_test_rows_and_others_is_refused(photos: Path, table: Path) -> None:
    text = table.read_text().replace("part", "split", 1).replace(",val,", ",train,").replace("p2,Test", "p0,Test")
    file = table.parent / "leak.csv"
    file.write_text(text)
    with pytest.raises(
        JobError, match=r"1 of the groups by person are among both the test rows and the others .*data.test=none"
    ):
        opened({"source": "table", "path": str(file), "group": "person"})
