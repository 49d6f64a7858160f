"""What was measured is what is read, in tables that explain themselves."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lehr.errors import RunError
from lehr.runs import (
    COLUMNS,
    Folder,
    Recorder,
    begin_attempt,
    read_epochs,
    read_events,
    read_steps,
    without_timing,
)


@pytest.fixture
def recorder(folder: Folder) -> Recorder:
    return Recorder(folder, begin_attempt(folder, workers=1, checkpoint=None))


@pytest.fixture
def on_disk(local: Folder) -> Recorder:
    return Recorder(local, begin_attempt(local, workers=1, checkpoint=None))


def test_numbers_come_back_to_the_last_digit_with_nan_infinities_and_nulls(recorder: Recorder) -> None:
    loss = [0.1 + 0.2, math.nan, math.inf, -math.inf, 5e-324]
    part = recorder.write_steps({"step": range(5), "loss": loss, "update_ratio": [None, 1e-3, None, math.nan, 0.0]})
    assert part == "part-0001-000001.parquet"
    table = read_steps(recorder.folder)
    assert str(table.column("loss").to_pylist()) == str(loss)
    assert str(table.column("update_ratio").to_pylist()) == "[None, 0.001, None, nan, 0.0]"
    assert table.column("loss").null_count == 0


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5],
        (np.float32(1), np.int64(2)),
        np.array([1, 2], dtype=np.int32),
        np.array([1.0, np.nan], dtype=np.float32),
        torch.tensor([1.0, 2.0]),
        [torch.tensor(1.0), None],
    ],
)
def test_any_usual_sequence_of_numbers_is_accepted(on_disk: Recorder, values: list[float]) -> None:
    on_disk.write_steps({"loss": values})
    expected = [None if value is None else float(value) for value in values]
    assert str(read_steps(on_disk.folder).column("loss").to_pylist()) == str(expected)


def test_every_column_has_its_unit_and_meaning_and_is_marked_as_wall_clock_time(on_disk: Recorder) -> None:
    on_disk.write_epochs({"epoch": [1], "seconds": [2.0], "perplexity": [9.5]})
    on_disk.write_steps({"step": [0]})
    for kind, table in (("steps", read_steps(on_disk.folder)), ("epochs", read_epochs(on_disk.folder))):
        schema = pq.read_schema(on_disk.folder.local_path / kind / "part-0001-000001.parquet")
        assert schema.equals(table.schema, check_metadata=True)
        for name, column in COLUMNS[kind].items():
            field = table.schema.field(name)
            assert str(field.type) == {"float64": "double"}.get(column.type, column.type)
            assert field.metadata == {
                b"unit": column.unit.encode(),
                b"description": column.description.encode(),
                b"timing": b"true" if column.timing else b"false",
            }
    field = read_epochs(on_disk.folder).schema.field("perplexity")
    assert field.metadata
    assert (field.type, field.metadata[b"unit"], field.metadata[b"timing"]) == (pa.float64(), b"1", b"false")
    assert [n for kind in COLUMNS.values() for n, c in kind.items() if c.timing] == [
        "seconds",
        "input_seconds",
        "cpu_cores",
        "memory_bytes",
        "gpu_use",
        "gpu_memory_bytes",
        "seconds",
        "examples_per_second",
    ]


def test_without_timing_keeps_all_but_wall_clock_columns(on_disk: Recorder) -> None:
    on_disk.write_epochs({"epoch": [1], "seconds": [2.0], "perplexity": [9.5]})
    kept = set(without_timing(read_epochs(on_disk.folder)).column_names)
    assert kept == (set(COLUMNS["epochs"]) | {"perplexity"}) - {"seconds", "examples_per_second"}


def test_a_run_that_recorded_nothing_has_empty_tables_with_all_columns(folder: Folder) -> None:
    for kind, read in (("steps", read_steps), ("epochs", read_epochs)):
        table = read(folder)
        assert table.num_rows == 0
        assert table.column_names == list(COLUMNS[kind])
    assert read_events(folder) == []


def test_columns_may_come_later_and_are_null_before(on_disk: Recorder) -> None:
    on_disk.write_epochs({"epoch": [1], "validation_loss": [0.5]})
    on_disk.write_epochs({"epoch": [2], "perplexity": np.array([3], dtype=np.int32), "note": ["better"]})
    on_disk.write_epochs({"epoch": [3], "perplexity": [2.5], "note": [None]})
    table = read_epochs(on_disk.folder)
    assert table.column("perplexity").to_pylist() == [None, 3.0, 2.5]
    assert table.column("validation_loss").to_pylist() == [0.5, None, None]


def test_parts_are_read_in_the_order_they_were_written(on_disk: Recorder) -> None:
    for i in range(12):
        on_disk.write_steps({"step": [i]})
    assert read_steps(on_disk.folder).column("step").to_pylist() == list(range(12))
    assert on_disk.covered() == {"steps": {"1": 12}, "epochs": {}}


def test_two_recorders_of_one_attempt_lose_nothing(folder: Folder) -> None:
    attempt = begin_attempt(folder, workers=1, checkpoint=None)
    driver, worker = Recorder(folder, attempt), Recorder(folder, attempt)
    for i in range(3):
        driver.event("driver", str(i))
        worker.event("worker", str(i))
        worker.write_steps({"step": [i]})
    assert [e["kind"] for e in read_events(folder)].count("driver") == 3
    assert len(read_events(folder)) == 6
    assert worker.covered()["steps"] == {"1": 3}
    assert driver.covered()["steps"] == {}


def test_events_may_come_from_several_threads(on_disk: Recorder) -> None:
    def speak() -> None:
        for _ in range(10):
            on_disk.event("beat", "…")

    threads = [threading.Thread(target=speak) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(on_disk.folder)) == 40


def test_an_event_is_written_at_once_with_its_time_and_fields(recorder: Recorder) -> None:
    before = datetime.now(UTC)
    recorder.event("diverged", "the loss is\nnot finite — ü\u2028", step=np.int64(7), loss=math.inf, time="not yours")
    (event,) = read_events(recorder.folder)
    moment = datetime.fromisoformat(event.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert before <= moment <= datetime.now(UTC)
    assert event == {
        "attempt": 1,
        "kind": "diverged",
        "message": "the loss is\nnot finite — ü\u2028",
        "step": 7,
        "loss": math.inf,
    }
    assert len(recorder.folder.read("events/part-0001-000001.jsonl").splitlines()) == 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"step": [0, 1], "loss": [1.0]}, "must have one length"),
        ({}, "no columns"),
        ({"step": [0], "loss": ["low"]}, 'steps: column "loss" does not hold numbers'),
        ({"step": [0.5]}, 'steps: column "step" does not hold numbers'),
        ({"step": [0], "extra": [object()]}, 'steps: column "extra" does not hold numbers'),
    ],
)
def test_wrong_columns_are_one_sentence_and_write_nothing(on_disk: Recorder, columns: dict, says: str) -> None:
    with pytest.raises(RunError, match=says):
        on_disk.write_steps(columns)
    assert on_disk.folder.files("steps") == []


def test_a_damaged_part_is_named(on_disk: Recorder) -> None:
    name = on_disk.write_steps({"step": [0]})
    data = on_disk.folder.read(f"steps/{name}")
    on_disk.folder.write(f"steps/{name}", data[: len(data) // 2])
    with pytest.raises(RunError, match=f"steps/{name}: is damaged"):
        read_steps(on_disk.folder)
    on_disk.folder.write("events/part-0001-000001.jsonl", b"{half")
    on_disk.event("hello", "the others can still be read")
    damaged, hello = read_events(on_disk.folder)
    assert (damaged["kind"], hello["kind"]) == ("damaged", "hello")
    assert "part-0001-000001.jsonl is damaged" in damaged["message"]


def test_parts_that_do_not_fit_together_are_one_sentence(on_disk: Recorder) -> None:
    on_disk.write_steps({"step": [0], "extra": ["text"]})
    on_disk.write_steps({"step": [1], "extra": [1.0]})
    with pytest.raises(RunError, match="do not fit together"):
        read_steps(on_disk.folder)
