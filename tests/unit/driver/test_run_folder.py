"""A run belongs to the job that began it, also after a default has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.driver.kind import Kind
from lehr.driver.run_folder import as_recorded, changes, choose_run_folder, open_run, starts_over
from lehr.errors import RunError
from lehr.job import Job, TrainJob, from_dict, load, to_dict
from lehr.kinds import kind_named
from lehr.runs import Claim, Folder, Lease, RunFolder
from lehr.runs.answers import NAME as ANSWERS

BEFORE = 0.001  # the rate that any unlisted optimizer once had


def written(folder: Path, text: str) -> Job:
    (folder / "job.yaml").write_text(f"name: mine\nstorage: {folder}\n{text}")
    return load(folder / "job.yaml")


def with_rate(job: Job, rate: float) -> dict[str, object]:
    """The job as an earlier version resolved and recorded it."""
    tree = to_dict(job)
    (tree if "optimizer" in tree else tree["base"])["optimizer"]["lr"] = rate
    return tree


@pytest.mark.parametrize(
    "text",
    [
        "kind: train\noptimizer: adadelta",
        "kind: search\nbase: {optimizer: adadelta}\nspace: {train.batch_size: [32, 64]}\nmethod: grid",
    ],
)
def test_a_run_begun_before_a_default_changed_goes_on_with_the_rate_that_it_recorded(text: str, tmp_path: Path) -> None:
    job = written(tmp_path, text)
    RunFolder.create(Folder.at(tmp_path / "mine"), with_rate(job, BEFORE))
    _, existing = choose_run_folder(job, fresh=False)
    assert existing is not None
    assert not changes(existing, job)
    resumed = as_recorded(job, existing)
    assert to_dict(resumed) == with_rate(job, BEFORE)
    assert resumed.folder == job.folder
    assert to_dict(job) != to_dict(resumed)  # a new run has the rate of the table


def test_a_rate_that_the_job_gives_is_another_job(tmp_path: Path) -> None:
    job = written(tmp_path, "optimizer: adadelta")
    RunFolder.create(Folder.at(tmp_path / "mine"), with_rate(job, BEFORE))
    given = written(tmp_path, "optimizer: {name: adadelta, lr: 1.0}")
    assert isinstance(given, TrainJob)
    with pytest.raises(RunError, match=r"mine is a run of another job \(optimizer.lr: 0.001 -> 1.0\)"):
        choose_run_folder(given, fresh=False)


def test_a_run_is_started_over_once_with_each_word(tmp_path: Path) -> None:
    """A retry of a job that was submitted with --fresh goes on with what the first attempt saved."""
    job = from_dict({"kind": "train", "name": "mine", "storage": str(tmp_path)})
    kind = Kind(check=lambda job: None, run=lambda running: None, report=lambda run: None)
    RunFolder.create(Folder.at(tmp_path / "mine"), to_dict(job))
    assert starts_over(job, "word")
    assert not starts_over(job, "")
    folder, existing = choose_run_folder(job, fresh=True)
    with Lease.acquire(folder) as lease:
        open_run(kind, job, folder, existing, Claim(folder.uri, lease.holder.owner), fresh=True, once="word")
    assert not starts_over(job, "word")
    assert starts_over(job, "another")


def test_a_fresh_start_leaves_nothing_of_what_the_earlier_model_answered(tmp_path: Path) -> None:
    job, folder = written(tmp_path, "kind: train"), Folder.at(tmp_path / "mine")
    existing = RunFolder.create(folder, to_dict(job))
    folder.write(ANSWERS, b"of the earlier model")
    open_run(kind_named("train"), job, folder, existing, Claim(folder.uri, "me"), fresh=True)
    assert folder.exists("job.yaml")
    assert not folder.exists(ANSWERS)
