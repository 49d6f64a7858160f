"""A run in a notebook: its state, curves and verdict; its trainings as a table; its curves as a picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from tests.support import TINY, tiny, train_here

import lehr
from lehr.errors import LehrError, RunError
from lehr.result import Run
from lehr.runs import Folder, RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train_here(tiny(train__epochs=2), tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = {**TINY, "train": {**TINY["train"], "epochs": 1}}
    space = {"optimizer.lr": [0.05, 0.0001]}
    job = {"kind": "search", "name": "s", "method": "grid", "base": base, "space": space}
    return lehr.run({**job, "storage": str(tmp_path_factory.mktemp("runs"))}, debug=True)


def test_a_run_shows_its_state_its_best_value_and_its_curves(trained: RunFolder) -> None:
    shown = Run(trained)._repr_html_()
    ElementTree.fromstring(shown.replace("<br>", "<br/>"))  # it is well formed
    assert "digits: finished" in shown
    assert f"{Run(trained).best['value']:.1%}" in shown
    assert shown.count("<svg") == 2
    assert "2 of 2" in shown


def test_a_run_that_has_recorded_nothing_says_so(tmp_path: Path) -> None:
    run = Run(RunFolder.create(Folder.at(tmp_path / "new"), {"kind": "train"}))
    assert "new: new" in run._repr_html_()
    with pytest.raises(RunError, match="new: nothing was recorded yet"):
        run.curves()


def test_a_search_has_a_row_for_each_trial(searched: Run) -> None:
    table = searched.metrics()
    assert list(table["run"]) == ["trials/0000", "trials/0001"]
    assert sorted(table["optimizer.lr"]) == [0.0001, 0.05]
    assert set(table.columns) == {"run", "optimizer.lr", "state", "epochs", "metric", "best", "epoch"}
    assert table["best"].max() == searched.best["value"]
    assert [each.name for each in searched.trainings()] == ["0000", "0001"]
    shown = searched._repr_html_()
    assert "s: finished" in shown
    assert shown.count("<tr>") == 3


def test_curves_are_a_picture_that_saves_itself(trained: RunFolder, searched: Run, tmp_path: Path) -> None:
    picture = Run(trained).curves()
    for ending in ("png", "svg", "html"):
        assert picture.save(tmp_path / f"curves.{ending}") == tmp_path / f"curves.{ending}"
    assert Image.open(tmp_path / "curves.png").width > 500
    assert ElementTree.parse(tmp_path / "curves.svg").getroot().tag.endswith("svg")
    assert "digits" in (tmp_path / "curves.html").read_text()
    with pytest.raises(LehrError, match=r"curves\.pdf: a picture ends in \.png, \.svg or \.html"):
        picture.save(tmp_path / "curves.pdf")
    assert searched.curves().title == "Comparison of 2 runs"


def test_curves_of_many_trainings_are_those_of_the_best(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lehr.result.MOST_DRAWN", 1)
    best = searched.metrics().sort_values("best").iloc[-1]["run"]
    assert searched.curves().title == str(best).removeprefix("trials/")


def test_what_is_printed_while_a_job_runs_goes_into_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in for `sys.stdout`, as in a notebook: Ray prints there, not on the descriptor."""
    import sys

    from lehr.screen import quiet

    before = sys.stdout, sys.stderr
    with quiet(tmp_path / "log.txt"):
        print("a line of a library")
        print("a warning", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "log.txt").read_text().split("\n")[:2] == ["a line of a library", "a warning"]
    assert capsys.readouterr() == ("", "")
