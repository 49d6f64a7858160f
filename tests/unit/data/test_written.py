"""Rows that can only be taken one after the other are written to files where memory should not hold them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lehr.data.pixels import PixelFormat
from lehr.data.reading import read
from lehr.data.sources.base import Source
from lehr.data.sources.returned import Called, returned_source
from lehr.data.sources.tabular import Wanted
from lehr.data.sources.written import FOLDER, Writing, in_storage, write_file
from lehr.errors import JobError
from lehr.processes import this_process
from lehr.runs.listing import list_runs

ROWS = 1500


def rows(odd: Any = None) -> Iterator[dict[str, Any]]:
    for row in range(ROWS):
        pixels = np.random.default_rng(row).integers(0, 256, (6, 6, 3), np.uint8)
        label: Any = "abc"[row % 3]
        yield {"image": pixels, "label": odd if odd is not None and row == ROWS - 1 else label, "person": row // 4}


def source_of(returned: Any) -> Source:
    def refuse(field: str, what: str) -> JobError:
        return JobError(what, field=field)

    return returned_source(returned, Called(rows, "mine:rows"), Wanted("class", ("label",)), refuse)


def written(returned: Any, storage: Path, monkeypatch: pytest.MonkeyPatch, most: int = 20_000) -> Source:
    monkeypatch.setenv("LEHR_MOST_HELD_BYTES", str(most))
    with in_storage(str(storage)):
        return source_of(returned)


def test_what_is_written_has_the_rows_and_names_of_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, files = source_of(rows()), written(rows(), tmp_path, monkeypatch)
    assert list(tmp_path.glob(f"{FOLDER}/*/*.parquet"))
    one, other = (read(source, PixelFormat()) for source in (held, files))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.classes == other.classes == ("a", "b", "c")
    assert held.there == files.there
    assert [held.name_of(row) for row in (0, 700, ROWS - 1)] == [files.name_of(row) for row in (0, 700, ROWS - 1)]
    assert max(part.rows for part in files.parts) <= 512
    some = files.parts[1].read([5, 2])
    assert [np.frombuffer(each.as_py(), np.uint8).size for each in some["image"]] == [108, 108]


def test_it_says_how_much_was_written_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = written(rows(), tmp_path, monkeypatch).notes
    assert told.startswith("mine:rows: 1,500 rows, more than 2e-05 GB, are written to ")
    assert f"{FOLDER}/{this_process()}-" in told.replace("\n", "")
    assert told.endswith("and removed when this job ends")


@pytest.mark.parametrize("odd", [7, ["a", "b"]])
def test_a_later_row_of_another_kind_is_refused(odd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match=r"mine:rows returned labels of several types"):
        written(rows(odd), tmp_path, monkeypatch)


def test_few_rows_are_held_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not written(rows(), tmp_path, monkeypatch, most=10_000_000).notes
    assert not (tmp_path / FOLDER).exists()


WRITES = """
import os, signal, sys
import pyarrow as pa
from lehr.data.sources.written import Writing, in_storage, write_file
with in_storage(sys.argv[1]):
    writing = Writing("mine:rows", "row {}")
writing.add(write_file(pa.table({"image": [b"x"]}), writing.next_path()))
print(writing.folder, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_go_with_the_process_that_wrote_them_and_those_of_a_killed_one_with_the_next(tmp_path: Path) -> None:
    def run(how: str) -> Path:
        command = [sys.executable, "-c", WRITES, str(tmp_path), how]
        return Path(subprocess.run(command, capture_output=True, text=True, check=how != "killed").stdout.strip())

    assert not run("ended").exists()
    left = run("killed")
    assert list(left.glob("*.parquet"))
    with in_storage(str(tmp_path)):
        ours = Writing("mine:rows", "row {}")
    assert not left.exists()
    assert Path(ours.folder).exists()
    with in_storage(str(tmp_path)):
        Writing("mine:rows", "row {}")
    assert Path(ours.folder).exists()  # of this process, which runs


def test_a_storage_that_holds_rows_lists_its_runs(tmp_path: Path) -> None:
    with in_storage(str(tmp_path)):
        writing = Writing("mine:rows", "row {}")
    writing.add(write_file(pa.table({"image": [b"x"]}), writing.next_path()))
    found = list_runs(tmp_path)
    assert not found.runs
