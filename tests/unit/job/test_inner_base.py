"""A job that is built on another: `base` is a training of its own, from a file, a mapping, or both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from lehr.errors import JobError
from lehr.job import KINDS, Job, Training, TrainJob, derive, from_dict, load, to_dict
from lehr.kinds import check


class Twice(Job):
    kind: Literal["twice"] = "twice"
    base: Training = Field(default=Training())


@pytest.fixture(autouse=True)
def _kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "twice", Twice)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "kind: train\nname: mine\noptimizer: {name: sgd, lr: 0.3}\ntrain: {epochs: 3}\n"
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("kind: train\nmodel: {name: small_cnn, width: 8}\n")
    return tmp_path


def twice(folder: Path, text: str, overrides: Any = ()) -> Twice:
    (folder / "job.yaml").write_text(f"kind: twice\n{text}\n")
    job = load(folder / "job.yaml", overrides)
    assert isinstance(job, Twice)
    return job


def test_a_file_is_read_as_the_base_without_what_belongs_to_its_own_run(folder: Path) -> None:
    job = twice(folder, "base: base.yaml")
    assert (job.base.optimizer.lr, job.base.train.epochs) == (0.3, 3)
    assert "name" not in to_dict(job)["base"]
    assert job.name is None
    assert from_dict(to_dict(job)) == job


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("base: {extends: base.yaml, train: {epochs: 9}}", (), (0.3, 9)),
        ("base: base.yaml", ["base.optimizer.lr=0.7"], (0.7, 3)),
        ("base: {optimizer: {lr: 0.2}}", ["base.train.epochs=4"], (0.2, 4)),
        ("base: {optimizer: {lr: 0.2}}", ["base=base.yaml"], (0.3, 3)),
    ],
)
def test_bases_and_overrides_are_merged_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, overrides: list[str], expected: tuple[float, int]
) -> None:
    monkeypatch.chdir(folder)
    job = twice(folder, text, overrides)
    assert (job.base.optimizer.lr, job.base.train.epochs) == expected


def test_another_base_file_replaces_the_first_one_completely(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    job = twice(folder, "base: base.yaml", ["base=other.yaml"])
    assert job.base.optimizer.lr != 0.3
    assert job.base.model.options == {"width": 8}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: missing.yaml", "missing.yaml: no such file"),
        ("base: 3", "base: 3 is not a training; allowed: the file of a train job, or its sections"),
        ("base: {optimiser: {lr: 1}}", "did you mean optimizer?"),
        ("base: {optimizer: {lr: -1}}", "base.optimizer.lr: -1 is too small"),
        ("base: job.yaml", 'base is a job of kind "twice"; allowed: kind: train'),
    ],
)
def test_a_wrong_base_gets_one_sentence(folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        twice(folder, text)
    assert sentence in str(caught.value)


def test_a_mistake_in_the_base_file_points_to_its_line(folder: Path) -> None:
    (folder / "base.yaml").write_text("kind: train\ntrain:\n  epochs: fast\n")
    with pytest.raises(JobError) as caught:
        twice(folder, "base: base.yaml")
    assert "base.yaml:3: base.train.epochs: " in str(caught.value)


def test_a_train_job_is_derived_from_the_base(folder: Path) -> None:
    job = twice(folder, "base: base.yaml\nstorage: out")
    child = derive(job.base, {"optimizer.lr": 0.01, "schedule": "cosine"}, parent=job, name="trials/0001")
    assert isinstance(child, TrainJob)
    assert (child.optimizer.lr, child.schedule.name, child.train.epochs) == (0.01, "cosine", 3)
    assert child.storage == str(folder / "out")
    assert child.folder == folder
    with pytest.raises(JobError) as caught:
        derive(job.base, {"optimizer.lr": "fast"}, parent=job, name="trials/0001")
    assert caught.value.field == "optimizer.lr"


@pytest.mark.parametrize(
    "job",
    [
        {"kind": "recipe"},
        {"kind": "search", "space": {"optimizer.lr": {"log_uniform": [0.01, 0.1]}}},
        {"kind": "ensemble", "method": "independent", "members": 2},
    ],
    ids=lambda job: str(job["kind"]),
)
def test_what_is_wrong_with_a_base_is_told_as_the_job_has_it(job: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    base = {"data": {"source": "digits"}, "train": {"batch_size": 16, "gradient_accumulation": 100}}
    file.write_text(yaml.safe_dump({**job, "base": base}))
    with pytest.raises(JobError) as caught:
        check(load(file))
    told = str(caught.value)
    assert re.search(r"job\.yaml:\d+: base\.train\.gradient_accumulation: ", told), told
    assert "type: base.train.gradient_accumulation=16" in told
    check(load(file, ["base.train.gradient_accumulation=16"]))  # what it says to type
