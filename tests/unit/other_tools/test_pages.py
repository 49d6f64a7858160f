"""`lehr diagnose FILE` and `lehr report FILE`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from lehr.cli import main

OVERFITTED = "epoch,loss,val_loss,val_accuracy\n" + "".join(
    f"{n},{2 - n / 12},{max(1, 2 - n / 5) + max(0, n - 5) / 10},{0.5 + min(n, 5) / 20 - max(0, n - 5) / 60}\n"
    for n in range(20)
)


@pytest.fixture
def overfitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("training.csv").write_text(OVERFITTED)
    return "training.csv"


def lehr(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["lehr", *words])
        with pytest.raises(SystemExit) as ended:
            main.run_command()
    return int(ended.value.code or 0)


def test_diagnose_says_what_it_read_what_it_found_and_what_it_cannot_tell(
    overfitted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lehr("diagnose", overfitted) == 0
    said = capsys.readouterr().out
    assert "Read as training loss: loss; validation loss: val_loss; validation accuracy: val_accuracy." in said
    assert re.search(r"Overfitting +\w+ confidence", said)
    assert "lowest at epoch 5" in said
    assert "This file cannot tell: how far training rows are ahead" in said


def test_the_same_as_json(overfitted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lehr("diagnose", overfitted, "--json", "--rows", "100") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["name"] == "overfitting"
    assert (found["findings"][0]["from"], found["findings"][0]["to"]) == (5, 19)
    assert found["read_as"]["validation loss"] == "val_loss"


def test_report_draws_the_curves_and_shades_the_part(overfitted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lehr("report", overfitted) == 0
    assert "Report: training-report/report.html" in capsys.readouterr().out
    page = Path("training-report/report.html").read_text()
    assert "Overfitting" in page
    assert '"x":5.0,"to":19.0' in page
    assert lehr("report", overfitted) == 0, "a page of lehr's own is replaced"
    Path("training-report/report.html").write_text("mine")
    assert lehr("report", overfitted) == 1  # never over others unasked
    assert "--force" in capsys.readouterr().err
    assert lehr("report", overfitted, "--force") == 0


def test_a_hostile_name_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text(OVERFITTED.replace("val_accuracy", "val_accuracy<script>alert(1)</script>"))
    assert lehr("report", "x.csv") == 0
    assert "<script>alert(1)" not in Path("x-report/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["diagnose", "training.csv", "--probe"], "--probe: has no effect beside a file of another tool"),
        (["diagnose", "training.csv", "train"], "train is no file of curves, as the others are"),
        (["diagnose", "training.csv", "--column", "loss"], "says no column; allowed: MEANING=COLUMN"),
        (["diagnose", "training.csv", "--rows", "0"], "0 is no number of rows"),
        (["diagnose", "train", "--rows", "10"], "--rows: has no effect beside a run of lehr"),
        (["report", "train", "--column", "a=b"], "--column: has no effect beside a run of lehr"),
    ],
)
def test_nothing_is_accepted_and_ignored(
    overfitted: str, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lehr(*words) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
