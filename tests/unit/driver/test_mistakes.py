"""A mistake in a job leaves nothing behind; what failed for another reason stays, to be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

import lehr
from lehr.errors import JobError, LehrError


def run(storage: Path, **changes: object) -> lehr.Run:
    job = {"kind": "train", "name": "one", "storage": str(storage), "data": {"source": "digits", "limit": 100}}
    few = {"train.epochs": 1, "train.batch_size": 50, **{key.replace("__", "."): each for key, each in changes.items()}}
    return lehr.run(job, few, debug=True)


def test_a_mistake_in_a_job_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="does not exist"):
        run(tmp_path / "runs", data__source="images", data__path=str(tmp_path / "nowhere"), data__limit=None)
    assert not list((tmp_path / "runs").glob("*/job.yaml"))


def test_a_mistake_deletes_no_run_that_was_there(tmp_path: Path) -> None:
    trained = run(tmp_path / "runs")
    with pytest.raises(LehrError):
        run(tmp_path / "runs", data__source="images", data__path=str(tmp_path / "nowhere"), data__limit=None)
    assert trained.status == "finished"


def test_debug_does_not_start_ray_for_data_that_need_it(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^data.source: mine:rows returns a Ray Dataset, and --debug runs without Ray"):
        run(tmp_path / "runs", data__source="mine:rows", data__limit=None)
    with pytest.raises(JobError, match=r"^base.data.source: mine:rows returns"):
        lehr.run({"kind": "recipe", "base": {"data": {"source": "mine:rows"}}, "budget": "9ep"}, debug=True)
