"""Advice can be typed as it stands: with the job file, and with what its user had changed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from lehr.cli.best import best as best_command
from lehr.curves.typed import as_typed
from lehr.job import from_dict, load, parse_overrides, to_dict
from lehr.runs import Environment, Folder, RunFolder


def best(run: str, file: str) -> None:
    best_command(run, Path(file))


FILE = "kind: train\ndata: {source: digits}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my job.yaml").write_text(FILE)
    return tmp_path


def run_of(here: Path, *overrides: str, file: str | None = None) -> RunFolder:
    job = load("my job.yaml", overrides)
    environment = replace(Environment(), job_file=job.file if file is None else file, overrides=dict(job.overrides))
    return RunFolder.create(Folder.at(here / "runs" / job.run_name), to_dict(job), environment)


def test_advice_has_the_file_and_keeps_the_overrides_that_it_does_not_change(here: Path) -> None:
    run = run_of(here, "optimizer.lr=1e-5", "train.epochs=4", "data.augment=[shift]")
    said = as_typed("Try. Type: lehr run JOB optimizer.lr=0.1. Or else", run)
    assert said == "Try. Type: lehr run 'my job.yaml' train.epochs=4 'data.augment=[shift]' optimizer.lr=0.1. Or else"


def test_what_the_shell_replaces_is_left_to_it(here: Path) -> None:
    run = run_of(here, "train.epochs=4")
    said = as_typed("do lehr run JOB data.split_seed=$i name=x-split-$i; done", run)
    assert said == "do lehr run 'my job.yaml' train.epochs=4 data.split_seed=$i name=x-split-$i; done"


def test_what_the_shell_would_take_for_its_own_is_quoted(here: Path) -> None:
    run = run_of(here, "notes=a|b; c")
    assert as_typed("lehr run JOB seed=1", run) == "lehr run 'my job.yaml' 'notes=a|b; c' seed=1"


def test_a_whole_that_advice_replaces_takes_its_parts_with_it(here: Path) -> None:
    run = run_of(here, "schedule.warmup=1ep", "train.epochs=4")
    said = as_typed("""lehr run JOB 'schedule={"name": "step"}'""", run)
    assert said == """lehr run 'my job.yaml' train.epochs=4 'schedule={"name": "step"}'"""


def test_a_run_that_was_named_gets_another_name(here: Path) -> None:
    run = run_of(here, "name=low", "train.epochs=4")
    assert as_typed("lehr run JOB optimizer.lr=0.1", run).endswith("train.epochs=4 optimizer.lr=0.1 name=low-2")
    said = as_typed("Type: lehr run JOB model.weights=pretrained. Or else", run)
    assert said.endswith("model.weights=pretrained name=low-2. Or else")
    assert as_typed("lehr run JOB name=mine", run).endswith("train.epochs=4 name=mine")


def test_a_training_whose_file_is_not_here_writes_it_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, file in enumerate(("", str(here / "gone.yaml"), str(here))):
        run = run_of(here, f"seed={number}", f"train.epochs={number + 1}", f"name=run-{number}", file=file)
        name = f"run-{number}"
        said = as_typed("Type: lehr run JOB optimizer.lr=0.1. Or else", run)
        assert said == (
            f"Type: lehr best runs/{name} {name}-job.yaml && lehr run {name}-job.yaml optimizer.lr=0.1. Or else"
        )
        best(*shlex.split(said.partition("lehr best ")[2].partition(" &&")[0]))
        job = load(f"{name}-job.yaml", ["optimizer.lr=0.1"])
        assert (job.seed, job.train.epochs, job.optimizer.lr) == (number, number + 1, 0.1)  # type: ignore[attr-defined]
        repeated = as_typed("more: for i in 1 2 3; do lehr run JOB data.split_seed=$i name=x-$i; done", run)
        assert repeated.startswith(
            f"more: lehr best runs/{name} {name}-job.yaml && for i in 1 2 3; do lehr run {name}-job"
        )
        assert as_typed("look: lehr data show JOB.", run).endswith(f"&& lehr data show {name}-job.yaml.")


def test_a_part_of_a_run_is_trained_again_by_its_own_job_not_by_that_of_the_whole(here: Path) -> None:
    whole = run_of(here, "name=search")
    for part in ("trials/0003", "members/1", "recipe/3-rates/trials/0001"):
        child = RunFolder.create(whole.folder.child(part), to_dict(load("my job.yaml")), whole.environment)
        said = as_typed("lehr run JOB train.epochs=9", child)
        name = f"search-{child.name}-job.yaml"
        assert said == f"lehr best runs/search/{part} {name} && lehr run {name} train.epochs=9"


def test_what_is_no_training_and_has_no_file_here_stays_a_word(here: Path) -> None:
    job = {**to_dict(load("my job.yaml")), "kind": "search"}
    run = RunFolder.create(Folder.at(here / "runs/of-python"), job, Environment())
    assert as_typed("lehr run JOB stopping.first=2", run) == "lehr run JOB stopping.first=2"


def test_what_is_typed_is_a_job(here: Path) -> None:
    run = run_of(here, "optimizer.lr=1e-5", "train.epochs=4")
    _, _, file, *typed = shlex.split(as_typed("lehr run JOB optimizer.lr=0.1 data.limit=64", run))
    assert Path(file).read_text() == FILE
    assert parse_overrides(typed) == {"train.epochs": 4, "optimizer.lr": 0.1, "data.limit": 64}
    assert from_dict({"kind": "train"}, typed)
