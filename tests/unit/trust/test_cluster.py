"""What the user may run goes with a submitted job: as digests of code, so that nothing else of those runs does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lehr import trust
from lehr.cli.submit import submit_request
from lehr.errors import RunError, StorageError
from lehr.job import Job, from_dict, load
from lehr.kuberay import load_profile, manifest
from lehr.runs import Folder, RunFolder
from lehr.submission import submit
from lehr.submission.backend import Request, Submission
from lehr.submission.submit import request_of, trusted_with
from lehr.trust import Call, allow, calls_of, is_allowed, remember

THEIRS = {"kind": "train", "model": {"name": "json:JSONDecoder", "width": 8}}
(CALL,) = calls_of(THEIRS)
DIGEST = f"sha256:{CALL.digest}"
JOBS: dict[str, dict[str, Any]] = {
    "backbone": {"kind": "transfer", "backbone": "run:theirs"},
    "members": {"kind": "ensemble", "method": "independent", "members": ["run:theirs", "theirs"]},
    "top": {"kind": "ensemble", "method": "independent", "members": {"top": 1, "of": "run:theirs"}},
    "predict": {"kind": "predict", "run": "theirs"},
}


@pytest.fixture(params=list(JOBS.values()), ids=list(JOBS))
def job(request: pytest.FixtureRequest) -> Job:
    """A job that names a run with code."""
    RunFolder.create(Folder.at("runs/theirs"), from_dict(THEIRS).model_dump(mode="json"))
    return from_dict(request.param)


def test_a_submitted_job_takes_no_trust_that_the_user_does_not_have(job: Job) -> None:
    assert request_of(job, Path.cwd()).trust == ()


def test_trust_goes_with_a_submitted_job_and_covers_that_code_alone(job: Job) -> None:
    sent = Request.read(request_of(job, Path.cwd(), ["theirs"]).write())
    assert sent.trust == (DIGEST,)
    trust._granted.clear()
    (trust.user_folder() / trust.FILE).unlink()  # as on the cluster
    assert not is_allowed(CALL)
    sent.given()
    assert is_allowed(CALL)
    assert not is_allowed(Call("model", "json:JSONDecoder", {"width": 9}))


def test_what_the_user_ran_before_goes_along_unasked(job: Job) -> None:
    allow([CALL])
    remember([CALL])
    trust._granted.clear()
    assert trusted_with(job, []) == (DIGEST,)


def test_a_run_that_does_not_exist_cannot_be_trusted(job: Job) -> None:
    with pytest.raises(RunError, match='no run "thiers"'):
        trusted_with(job, ["thiers"])


def test_a_storage_that_only_the_cluster_reaches_is_left_to_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise StorageError("it cannot be reached")

    monkeypatch.setattr(submit, "find", away)
    assert trusted_with(job, ["theirs"]) == ("theirs",)


def test_a_job_counts_as_given_where_it_was_submitted_to(tmp_path: Path) -> None:
    Path("job.yaml").write_text(json.dumps(THEIRS))
    request = request_of(load("job.yaml"), tmp_path)
    trust._granted.clear()
    Request.read(request.write()).load()
    assert not is_allowed(CALL)
    Request.read(request.write()).given()
    assert is_allowed(CALL)


class Cluster:
    """A cluster that takes every job."""

    address, option, notes = "http://cluster", "", ()

    def jobs(self) -> list[Submission]:
        return []

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        return Submission(id="1", run=request.run, number=1, status="pending", request=request)


def test_what_was_submitted_may_run_here_later(tmp_path: Path) -> None:
    Path("job.yaml").write_text(json.dumps(THEIRS))
    request = request_of(load("job.yaml"), tmp_path)
    trust._granted.clear()
    assert not is_allowed(CALL)
    load("job.yaml")
    submit_request(Cluster(), request, follow=False, wait=False)  # type: ignore[arg-type]
    trust._granted.clear()
    assert is_allowed(CALL)


def test_trust_goes_with_a_job_on_kubernetes() -> None:
    profile = load_profile(Path(__file__).parents[3] / "cluster/profiles/kind.yaml")
    job = from_dict({"kind": "train", "name": "mine", "storage": "s3://bucket/runs"})
    _, rayjob = manifest(job, profile, trust=[DIGEST, "their run"])
    assert rayjob["spec"]["entrypoint"].endswith(f"/job.yaml --trust {DIGEST} --trust 'their run'")
