"""Whatever numbers and names a record holds, reading it ends in bounds: with its report, or one sentence."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support import tiny, train_here

from lehr.cli.show import show
from lehr.curves import comparison, diagnose_run, write_curves
from lehr.errors import RunError
from lehr.runs import Folder, RunFolder

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_here(tiny(train__epochs=3), tmp_path_factory.mktemp("runs") / "tiny").folder.local_path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(trained, tmp_path / "runs/tiny")
    return RunFolder.open(tmp_path / "runs/tiny")


def change(run: RunFolder, kind: str, what: Change) -> None:
    """Replaces the record by one part with other columns; the other parts become empty."""
    first, *others = sorted((run.folder.local_path / kind).iterdir())
    table = what(pa.concat_tables([pq.read_table(part) for part in (first, *others)], promote_options="default"))
    pq.write_table(table, first)
    for part in others:
        pq.write_table(table[:0], part)


def column(name: str, value: Any) -> Change:
    """The same value in every row of a column."""
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array([value] * len(table)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 0.0])
@pytest.mark.parametrize("name", ["loss", "gradient_norm", "seconds"])
def test_a_column_may_hold_any_number(run: RunFolder, name: str, value: float) -> None:
    change(run, "steps", column(name, value))
    assert diagnose_run(run).findings


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -5.0])
@pytest.mark.parametrize(("kind", "name"), [("steps", "epoch"), ("steps", "learning_rate")])
def test_a_row_without_a_place_is_one_sentence(run: RunFolder, kind: str, name: str, value: float) -> None:
    change(run, kind, column(name, value))
    with pytest.raises(RunError, match=rf"{kind}: is damaged: {name.replace('_', ' ')} holds what is no number from 0"):
        diagnose_run(run)


def test_text_where_numbers_belong_is_one_sentence(run: RunFolder) -> None:
    change(run, "steps", column("loss", "low"))
    with pytest.raises(RunError, match="its parts do not fit together"):
        diagnose_run(run)


def test_a_report_of_hostile_numbers_and_names_is_whole_and_steers_nothing(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, "steps", lambda table: column("loss", 1e308)(column("gradient_norm", -1e308)(table)))
    change(run, "epochs", lambda table: table.append_column("note", pa.array(["\x1b[2J[/x]"] * len(table))))
    path = run.folder.local_path
    job = (path / "job.yaml").read_text().partition("# sha256")[0]  # whoever forges a run leaves it out
    job = job.replace("name: small_cnn", r'name: "a\e[31m\u202e\0b"').replace("lr: 0.05", "lr: fast")
    (path / "job.yaml").write_text(job)
    told = json.loads((path / "progress.json").read_text())
    del told["sha256"]
    told |= {"message": "\x1b]0;title\x07", "loss": 1e308, "seconds": {"total": float("inf"), "\x1b": float("nan")}}
    (path / "progress.json").write_text(json.dumps(told))
    (event,) = list((path / "events").iterdir())[:1]
    event.write_text(json.dumps({"time": "\x1b", "attempt": 1, "kind": "[red]", "message": "\u202e[/x]"}) + "\n")
    run = RunFolder.open(path)
    write_curves(run)
    page = re.sub(r"(?s)<script>.*?</script>", "", run.folder.read("report.html").decode())
    assert not STEERING.search(page)
    assert r"a\x1b[31m\u202e\x00b" in page
    assert run.folder.read("curves.png").startswith(b"\x89PNG")
    assert comparison([run, run])[1].startswith(b"\x89PNG")
    capsys.readouterr()
    show(str(path))
    printed = capsys.readouterr().out
    assert not STEERING.search(printed)
    assert r"\x1b]0;title\x07" in printed
    assert r"[red]: \u202e[/x]" in printed
    assert max(map(len, printed.splitlines())) < 400


def test_a_million_epochs_are_shown_in_a_few_lines(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    count = 1_000_000
    numbers, losses = pa.array(np.arange(1, count + 1)), pa.array(np.linspace(1.0, 0.0, count))
    change(run, "epochs", lambda _: pa.table({"epoch": numbers, "step": numbers, "train_loss": losses}))
    began = time.monotonic()
    show(str(run.folder.local_path))
    assert time.monotonic() - began < 10
    assert len(capsys.readouterr().out.splitlines()) < 60
    write_curves(RunFolder(run.folder.writing_to(Folder.at("out"))))
    assert Path("out/report.html").stat().st_size < 4_000_000
