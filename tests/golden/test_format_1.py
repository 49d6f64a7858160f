"""Runs that the last version of lehr with format 1 made: every command and every later job still takes them.

They were made of the digits with old names of some fields (`train.clip` and the like). Reports, pictures and logs were
left out, and what names a machine was changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import lehr
from lehr.cli.main import app
from lehr.job import from_dict, load
from lehr.job.renamed import RENAMED
from lehr.runs import RunFolder, all_attempts, newest_valid, steps_per_epoch
from lehr.training.group import Group
from lehr.training.resume import find_resume_point

GOLDEN = Path(__file__).parent
NAMES = ("format-1-train", "format-1-search", "format-1-ensemble")
OLD_JOB = {
    "kind": "train",
    "data": {"source": "digits", "limit": 80},
    "model": {"name": "small_cnn", "width": 2, "norm": "batch"},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": "constant",
    "train": {"epochs": 2, "batch_size": 16, "clean_subset": 16, "clip": 5.0, "accumulate": 2},
    "workers": 1,
}
OLD_SEARCH = {
    "kind": "search",
    "base": OLD_JOB,
    "space": {
        "optimizer.lr": {"choice": [0.02, 0.1]},
        "train.clip": {"choice": [1.0, 5.0]},
        "schedule": {"choice": ["constant", {"name": "cosine", "final": 0.1}]},
    },
    "budget": {"trials": 2},
    "stopping": "none",
}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage folder with a copy of each run."""
    for name in NAMES:
        shutil.copytree(GOLDEN / name, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def run(job: dict[str, Any], name: str, storage: Path, **overrides: Any) -> RunFolder:
    changes = {"name": name, "storage": str(storage), **{key.replace("__", "."): v for key, v in overrides.items()}}
    return lehr.run(job, changes, debug=True).folder


def said(*command: str) -> str:
    result = CliRunner().invoke(app, list(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folders_are_of_format_1_and_have_old_names() -> None:
    for name in NAMES:
        text = (GOLDEN / name / "job.yaml").read_text()
        assert text.startswith("format: 1\n")
        for old in ("clip: 5.0", "accumulate: 2", "clean_subset: 16"):
            assert old in text
        assert not [new for _, _, new in RENAMED if f"{new}:" in text]


@pytest.mark.usefixtures("storage")
def test_they_are_listed() -> None:
    listed = said("runs")
    for name in NAMES:
        (line,) = [line for line in listed.splitlines() if line.startswith(name)]
        assert "finished" in line
    assert "accuracy 21.73%" in " ".join(listed.split())


def test_reading_them_says_nothing_of_old_names_and_changes_nothing(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(storage)
    for name in NAMES:
        golden = RunFolder.open(storage / name)
        assert golden.status() == "finished"
        training = golden.job if golden.job["kind"] == "train" else golden.job["base"]
        assert training["train"]["max_gradient_norm"] == 5.0
        assert from_dict(golden.job).kind == golden.job["kind"]
        golden.steps(), golden.epochs(), golden.events()
    assert capsys.readouterr().err == ""
    assert files(storage) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("format-1-train", ["finished", "all epochs done", "Too short to say", "starts with 1 worker"]),
        ("format-1-search", ["finished", "2 of 2 trials", "14.76%"]),
        ("format-1-ensemble", ["finished", "78.27% error"]),
    ],
)
@pytest.mark.usefixtures("storage")
def test_each_is_shown(name: str, words: list[str]) -> None:
    shown = said("show", name)
    for word in words:
        assert word in shown


@pytest.mark.parametrize("name", NAMES)
def test_each_gets_a_report(name: str, storage: Path) -> None:
    said("report", name)
    page = (storage / name / "report.html").read_text()
    assert name in page
    assert "max_gradient_norm" in page
    assert "clean_subset" not in page


@pytest.mark.usefixtures("storage")
def test_they_are_diagnosed() -> None:
    for name in ("format-1-train", "format-1-search/trials/0001", "format-1-ensemble/members/02"):
        assert "Too short to judge" in said("diagnose", name)


def test_a_run_resumes_with_more_epochs_from_its_last_checkpoint(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "format-1-train"
    old = RunFolder.open(storage / name)
    assert steps_per_epoch(old) == 5
    before = old.epochs().to_pylist()
    resumed = run(OLD_JOB, name, storage, train__epochs=4)
    assert "train.clip is now called train.max_gradient_norm" in capsys.readouterr().err
    assert resumed.folder.local_path == storage / name, "the same run, not another one beside it"
    assert [attempt.step for attempt in all_attempts(resumed.folder)] == [0, 10]
    assert resumed.status() == "finished"
    assert resumed.steps().column("step").to_pylist() == list(range(20))
    assert resumed.epochs().to_pylist()[:2] == before
    newest, skipped = newest_valid(resumed.folder)
    assert newest is not None
    assert (newest.step, skipped) == (20, [])
    assert len(find_resume_point(resumed.folder, Group()).history) == 4
    outcome = resumed.outcome()
    assert outcome is not None
    assert outcome.status == "finished"


def test_a_finished_run_stays_finished_under_either_name_of_its_fields(storage: Path) -> None:
    before = files(storage / "format-1-train")
    del before["diagnosis.json"]  # the report was left out, and so it is written again
    for job in (OLD_JOB, RunFolder.open(storage / "format-1-train").job):
        assert run(dict(job), "format-1-train", storage).folder.local_path == storage / "format-1-train"
        assert {name: data for name, data in files(storage / "format-1-train").items() if name in before} == before


def test_a_resumed_run_is_as_one_that_this_version_trained_alone(storage: Path) -> None:
    resumed = run(OLD_JOB, "format-1-train", storage, train__epochs=4)
    whole = run(OLD_JOB, "whole", storage, train__epochs=4)
    for name in ("loss", "learning_rate", "gradient_norm"):
        theirs, ours = (each.steps().column(name).to_numpy() for each in (resumed, whole))
        np.testing.assert_allclose(theirs, ours, rtol=2e-4)


@pytest.mark.parametrize("name", ["format-1-train", "format-1-ensemble"])
def test_predictions_are_made_with_them(name: str, storage: Path) -> None:
    out = storage.parent / "out"
    done = run({"kind": "predict", "run": name, "data": {"source": "digits"}, "out": str(out)}, "predicted", storage)
    assert done.status() == "finished"
    table = pq.read_table(out)
    assert table.num_rows == 1797
    assert np.asarray(table["probabilities"].to_pylist()).sum(axis=1) == pytest.approx(1.0)
    probabilities = lehr.Run(storage / name).predict(np.zeros((2, 8, 8, 1), np.uint8))
    assert probabilities.shape == (2, 10)


def test_one_is_the_backbone_of_a_transfer(storage: Path) -> None:
    done = run(
        {
            "kind": "transfer",
            "backbone": "run:format-1-train",
            "strategy": ["features", "finetune"],
            "base": {"data": {"source": "digits", "limit": 80}, "train": {"epochs": 1, "batch_size": 16}},
            "features": {"steps": 5},
        },
        "transferred",
        storage,
    )
    assert done.status() == "finished"
    assert [child.name for child in done.children("trials")] == ["features", "finetune"]
    begun = RunFolder.open(storage / "transferred" / "trials" / "finetune").job
    assert begun["model"]["weights"] == "run:format-1-train"


def test_another_training_starts_from_its_weights(storage: Path) -> None:
    done = run(OLD_JOB, "started", storage, model__weights="run:format-1-train", train__epochs=1)
    assert done.status() == "finished"


def test_a_search_goes_on_with_another_trial_and_keeps_those_it_has(storage: Path) -> None:
    name = "format-1-search"
    before = files(storage / name / "trials")
    done = run(OLD_SEARCH, name, storage, budget__trials=5)
    assert done.folder.local_path == storage / name
    assert [child.name for child in done.children("trials")] == [f"{number:04}" for number in range(5)]
    now = files(storage / name / "trials")
    kept = [path for path in before if not path.endswith("job.yaml")]  # which names the storage
    assert {path: now[path] for path in kept} == {path: before[path] for path in kept}
    # The version that began the search had another name for one field, and would have repeated its trials 0 and 1.
    cosine = {"name": "cosine", "end_factor": 0.1}
    drawn = ((2, 0.1, 5.0, "constant"), (3, 0.1, 1.0, "constant"), (4, 0.1, 1.0, cosine))
    for number, rate, norm, schedule in drawn:
        assert done.folder.read_json(f"trials/{number:04}/search.json")["values"] == {
            "optimizer.lr": rate,
            "train.max_gradient_norm": norm,
            "schedule": schedule,
        }


@pytest.mark.usefixtures("storage")
def test_the_best_trial_of_a_search_becomes_a_job_file() -> None:
    said("best", "format-1-search", "best.yaml")
    assert load("best.yaml") == from_dict(
        {**OLD_JOB, "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}}, {"train.clip": 1.0}
    )


def test_members_of_an_ensemble_are_the_best_trials_of_a_search(storage: Path) -> None:
    job = {"kind": "ensemble", "method": "independent", "members": {"top": 2, "of": "run:format-1-search"}}
    done = run({**job, "base": OLD_JOB, "compare": False}, "of-trials", storage)
    assert done.status() == "finished"
    assert [child.name for child in done.children("members")] == ["01", "02"]
