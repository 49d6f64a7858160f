"""Faulty data: the job fails with a message that names it, or skips it and says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lehr.errors import LehrError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.runs import RunFolder


def picture(seed: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: str, rows: int, classes: int = 2, first: int = 0, **changes: Any) -> None:
    columns: dict[str, Any] = {
        "image": pa.array([picture(first + row) for row in range(rows)], pa.binary()),
        "label": pa.array([row % classes for row in range(rows)], pa.int64()),
        **changes,
    }
    table = pa.table(columns).replace_schema_metadata({"classes": ",".join("abcdefgh"[:classes])})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def run(source: str, path: str, **overrides: Any) -> RunFolder:
    tree = {
        "data": {"source": source, "path": path, "validation": 0.25},
        "model": {"name": "small_cnn", "width": 8},
        "train": {"epochs": 2, "batch_size": 8},
    }
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return run_job(from_dict(tree, changes), debug=True)


def labels_out_of_range() -> None:
    shard("data/a.parquet", 16, label=pa.array([0, 1] * 7 + [0, 7], pa.int64()))


def a_null_label() -> None:
    shard("data/a.parquet", 16, label=pa.array([0, 1] * 7 + [None, 1], pa.int64()))


def a_null_image() -> None:
    shard("data/a.parquet", 16, image=[None, *(picture(row) for row in range(15))])


def another_schema() -> None:
    shard("data/a.parquet", 16)
    pq.write_table(pa.table({"picture": [picture(1)] * 4, "class": [0, 1, 0, 1]}), "data/b.parquet")


def another_type() -> None:
    shard("data/a.parquet", 16)
    shard("data/b.parquet", 16, label=pa.array(["a", "b"] * 8))


def no_rows() -> None:
    shard("data/a.parquet", 0)


def one_row() -> None:
    shard("data/a.parquet", 1)


def a_shard_that_is_no_parquet() -> None:
    shard("data/a.parquet", 16)
    Path("data/b.parquet").write_bytes(b"PAR1 and then nothing")


def a_truncated_shard() -> None:
    shard("data/a.parquet", 16)
    Path("data/a.parquet").write_bytes(Path("data/a.parquet").read_bytes()[:-200])


def nothing_there() -> None:
    Path("data").mkdir()


WRONG: list[tuple[Callable[[], None], str]] = [
    (labels_out_of_range, r"row 15 of .* has label 7; allowed: 0 to 1"),
    (a_null_label, r"label"),
    (another_schema, r"b\.parquet"),
    (another_type, r"b\.parquet|label"),
    (no_rows, r"no rows|holds no"),
    (one_row, r"of one class"),
    (a_shard_that_is_no_parquet, r"b\.parquet"),
    (a_truncated_shard, r"a\.parquet"),
    (nothing_there, r"data"),
    (a_null_image, r"unreadable"),
]


@pytest.mark.parametrize("cache", ["auto", "stream"])
@pytest.mark.parametrize(("make", "sentence"), WRONG, ids=[make.__name__ for make, _ in WRONG])
def test_faulty_data_fails_with_a_message_that_names_it(make: Callable[[], None], sentence: str, cache: str) -> None:
    make()
    with pytest.raises(LehrError, match=sentence) as caught:
        run("parquet", "data", data__cache=cache)
    assert "full trace" not in str(caught.value), "only an internal error shows a traceback"


def test_an_empty_class_folder_is_reported_and_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        Path(f"data/{name}").mkdir(parents=True)
        for row in range(12):
            Path(f"data/{name}/{row}.png").write_bytes(picture(row))
    Path("data/c").mkdir()
    assert run("images", "data").status() == "finished"
    assert "no images and is ignored: c" in capsys.readouterr().out


def test_unreadable_images_within_the_allowed_share_are_skipped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    images = [picture(row) for row in range(40)]
    images[3], images[17] = b"", images[17][:60]
    shard("data/a.parquet", 40, image=images)
    finished = run("parquet", "data", data__skip_unreadable=0.1)
    assert finished.status() == "finished"
    assert "2 unreadable images skipped" in capsys.readouterr().out
    data = finished.environment.data
    assert data is not None
    assert data.unreadable is not None
    assert data.unreadable.count == 2


@pytest.mark.parametrize("vanish", ["gone", "emptied"])
def test_a_shard_that_disappears_during_an_epoch_ends_the_run_which_resumes_once_it_is_back(
    vanish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.training.train_step import TrainStep

    for number in range(6):
        shard(f"data/{number}.parquet", 16, first=100 * number)
    whole = run("parquet", "data", name="whole", data__cache="stream")
    take = TrainStep.__call__

    def take_and_lose(self: TrainStep, batch: Any, rows: int, step: int) -> Any:
        if step == 11:  # in the second epoch
            for path in Path("data").iterdir():
                path.unlink() if vanish == "gone" else path.write_bytes(b"")
        return take(self, batch, rows, step)

    content = {path: path.read_bytes() for path in Path("data").iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(TrainStep, "__call__", take_and_lose)
        with pytest.raises(LehrError, match=r"\.parquet") as caught:
            run("parquet", "data", name="lost", data__cache="stream")
    assert "\n" not in str(caught.value)
    for path, data in content.items():
        path.write_bytes(data)
    again = run("parquet", "data", name="lost", data__cache="stream")
    assert again.epochs()["validation_loss"].to_pylist() == whole.epochs()["validation_loss"].to_pylist()
