"""A real training run ends with a self-contained page and a diagnosis."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny, train_here
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.curves import comparison, diagnose_run, verdict, write_curves
from lehr.curves.comparable import not_comparable
from lehr.curves.diagnosis import diagnose
from lehr.curves.findings import Diagnosis
from lehr.curves.record import Curves
from lehr.curves.report import compare_page
from lehr.errors import RunError
from lehr.job import to_dict
from lehr.runs import Folder, RunFolder

from .curves import made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train_here(tiny(notes="<script>alert(1)</script> & more"), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def page(trained: RunFolder) -> str:
    assert write_curves(trained) == trained.folder.local_path / "curves.png"
    return trained.folder.read("report.html").decode()


def test_the_run_folder_holds_picture_page_and_diagnosis(trained: RunFolder, page: str) -> None:
    assert trained.folder.read("curves.png").startswith(b"\x89PNG")
    found = trained.folder.read_json("diagnosis.json")
    assert found["format"] == 1
    assert {"name", "title", "rule", "evidence", "confidence", "overrides", "command"} <= set(found["findings"][0])
    assert verdict(trained).startswith(found["findings"][0]["title"])


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b"{}", b'{"run": "a", "findings": []}', b'{"run": "a", "findings": [1]}']
)
def test_the_diagnosis_is_read_back_as_written_and_a_damaged_one_is_none(trained: RunFolder, damage: bytes) -> None:
    diagnosis = diagnose_run(trained)
    assert Diagnosis.read(trained.folder) == diagnosis
    trained.folder.write("diagnosis.json", damage)
    assert Diagnosis.read(trained.folder) is None
    assert verdict(trained) == ""
    diagnosis.write(trained.folder)


def test_the_page_makes_no_network_requests(page: str) -> None:
    without_scripts = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?!data:)[^\s\"'>]+", without_scripts)
    assert "@import" not in page
    assert "url(" not in without_scripts
    assert "default-src 'none'" in page  # and a browser would refuse it


def test_the_page_stays_below_five_megabytes(page: str) -> None:
    assert len(page.encode()) < 5_000_000


def test_the_diagnosis_comes_before_the_charts_and_everything_else_after_them(trained: RunFolder, page: str) -> None:
    title = trained.folder.read_json("diagnosis.json")["findings"][0]["title"]
    order = [page.index(text) for text in (f"<h2>{title}", 'class="chart"', "Where the time went", "<h2>Events")]
    assert order == sorted(order)
    assert "Environment" in page
    assert "label_smoothing" in page  # the job, with its defaults


def test_user_input_is_escaped(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_run_without_steps_has_no_picture(tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "new"), to_dict(tiny()))
    assert write_curves(run) is None
    assert not run.folder.exists("report.html")


def test_the_comparison_lists_only_what_differs(trained: RunFolder, tmp_path: Path) -> None:
    other = train_here(tiny(optimizer__lr=0.02, train__epochs=2), tmp_path / "other")
    text, picture, warning = comparison([trained, other])
    assert warning == ""
    assert picture.startswith(b"\x89PNG")
    assert "optimizer.lr" in text
    assert "train.epochs" in text
    assert "data.source" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_a_single_run_cannot_be_compared(trained: RunFolder) -> None:
    with pytest.raises(RunError, match="two or more"):
        comparison([trained])


def test_the_commands_find_the_run_and_print_what_they_wrote(trained: RunFolder) -> None:
    where = str(trained.folder.local_path)
    result = CliRunner().invoke(app, ["diagnose", where])
    assert result.exit_code == 0, result.output
    assert trained.folder.read_json("diagnosis.json")["findings"][0]["title"] in result.output
    result = CliRunner().invoke(app, ["report", where])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output


def test_a_comparison_says_which_runs_its_rows_cannot_tell_apart() -> None:
    runs = [replace(made(1.0, validation=value), name=name) for name, value in (("a", 0.90), ("b", 0.91), ("c", 0.5))]
    page = compare_page(runs, [diagnose(each) for each in runs])
    assert "90.0% ± 3.1" in page
    assert "The best is b; 360 validation rows cannot tell it from a: chance explains such a difference." in page


def test_each_advice_of_a_comparison_is_a_paragraph_of_its_own() -> None:
    runs = [replace(made(1.0, validation=value), name=name) for name, value in (("a", 0.90), ("b", 0.91))]
    page = compare_page(runs, [diagnose(each) for each in runs], ["lehr run a.yaml folds=5", "lehr run b.yaml folds=5"])
    assert all(f'<p class="">lehr run {name}.yaml folds=5</p>' in page for name in "ab")


def on(name: str, value: float, **data: Any) -> Curves:
    seed, rows = data.pop("seed", 0), data.pop("rows", 360)
    found = made(1.0, validation=value, job={"seed": seed, "data": {"source": "digits", **data}})
    return replace(found, name=name, validation_rows=rows)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"seed": 0}, {"seed": 1}, "each seed draws its own"),
        ({"validation": 0.2}, {"validation": 0.4, "rows": 719}, "data.validation differs"),
        ({"source": "parquet", "path": "a"}, {"source": "parquet", "path": "b"}, "data.path differs"),
        ({"classes": ["1", "2"]}, {}, "data.classes differs"),
    ],
)
def test_runs_on_different_validation_rows_are_not_ranked(one: dict[str, Any], other: dict[str, Any], why: str) -> None:
    runs = [on("a", 0.90, **one), on("b", 0.91, **one), on("c", 0.99, **other)]
    page = compare_page(runs, [diagnose(each) for each in runs])
    assert f"they were validated on different rows ({why}): a, b; c." in page
    assert "The best of a, b is b" in page
    assert "The best is c" not in page
    assert "rows A" in page
    assert "rows B" in page


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 0, "split_seed": 5}, {"seed": 1, "split_seed": 5}),
        ({"seed": 0}, {"seed": 0, "validation": 0.2}),
        ({"seed": 0, "validation": "v.parquet"}, {"seed": 1, "validation": "v.parquet"}),
    ],
)
def test_runs_on_the_same_validation_rows_are_ranked(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert not_comparable([on("a", 0.90, **one), on("b", 0.91, **other)]) == ""


def test_validation_rows_with_a_source_of_their_own_do_not_depend_on_the_seed() -> None:
    runs = [replace(on(f"{seed}", 0.9, seed=seed), own_validation=True) for seed in (0, 1)]
    assert not_comparable(runs) == ""
