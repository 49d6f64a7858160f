"""A mistake in a job file is told where the job is submitted, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.cli.main import app
from lehr.errors import JobError
from lehr.job import load
from lehr.submission.mistakes import refuse_mistakes

GOOD: dict[str, Any] = {"data": {"source": "digits"}, "train": {"epochs": 2}}


def job_file(folder: Path, **changes: Any) -> str:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return str(file)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"model": "resnett18"}, r"job\.yaml:\d+: model\.name: .*did you mean resnet18"),
    ({"model": {"name": "small_cnn", "widht": 8}}, r"job\.yaml:\d+: model\.widht"),
    ({"optimizer": "sgdd"}, r"job\.yaml:\d+: optimizer"),
    ({"loss": {"name": "focal", "gama": 2}}, r"job\.yaml:\d+: loss\.gama"),
    ({"kind": "search", "base": GOOD, "data": None, "train": None}, "space|data|train"),
]


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES)
def test_a_mistake_is_refused_with_exit_code_2_and_nothing_is_sent(
    changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("the cluster was asked")

    monkeypatch.setattr("lehr.cli.submit.ray_jobs", nothing)
    for options in ([], ["--dry-run"]):
        with pytest.raises(JobError, match=sentence) as refused:
            app(["submit", job_file(tmp_path, **changes), *options], standalone_mode=False)
        assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "model",
    [
        {"name": "resnet18", "weights": "/mnt/cluster/only.pth"},
        {"name": "resnet18", "weights": "run:there"},
        {"name": "on_the_cluster.nets:Net"},
    ],
)
def test_what_may_be_on_the_cluster_alone_is_left_to_it(model: dict[str, Any], tmp_path: Path) -> None:
    note = refuse_mistakes(load(job_file(tmp_path, model=model)))
    assert note.startswith("Not checked here, where it would fail (")


def test_nothing_is_said_of_a_job_without_a_mistake(tmp_path: Path) -> None:
    assert refuse_mistakes(load(job_file(tmp_path))) == ""
