"""What is submitted, under which name, and what submitting it again means, as a person at the command line sees it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dashboard import Dashboard

from lehr.cli.submit import read_requirements
from lehr.errors import JobError, LehrError
from lehr.job import load, to_dict
from lehr.submission.backend import Request, Submission
from lehr.submission.ray_jobs import RayJobs
from lehr.submission.submit import data_paths, next_action, package_of, request_of, working_folder

JOB = "kind: train\nstorage: runs\nmodel: {name: small_cnn, width: 8}\ntrain: {epochs: 2, batch_size: 64}\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "project/jobs/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(JOB)
    (tmp_path / "project/nets.py").write_text("x = 1\n")
    return path


def lehr(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lehr", *words], capture_output=True, text=True, timeout=60, check=False, cwd=cwd
    )


def test_submitting_a_job_again_attaches_to_it_or_resumes_it_or_says_that_it_is_finished(
    dashboard: Dashboard, job: Path
) -> None:
    words = ("submit", "jobs/mine.yaml", "--cluster", dashboard.address, "--no-wait")
    project = job.parents[1]
    first = lehr(*words, cwd=project)
    assert first.returncode == 0, first.stderr
    assert "2 files, 1 KiB, from" in first.stdout
    assert f"Submitted mine to {dashboard.address}." in first.stdout
    assert list(dashboard.jobs) == ["mine--1"]

    dashboard.jobs["mine--1"]["status"] = "RUNNING"
    again = lehr(*words, cwd=project)
    assert "mine is already running on" in again.stdout
    assert list(dashboard.jobs) == ["mine--1"]
    other = lehr(*words, "name=mine", "optimizer.lr=0.5", cwd=project)
    assert other.returncode == 1
    assert "with other settings (optimizer.lr: 0.1 -> 0.5)" in other.stderr
    assert f"lehr stop mine --cluster {dashboard.address}" in other.stderr
    assert other.stderr.count("\n") == 1
    renamed = lehr(*words, "optimizer.lr=0.5", cwd=project)
    assert "Submitted mine-lr-0.5 to" in renamed.stdout

    dashboard.jobs["mine--1"]["status"] = "SUCCEEDED"
    done = lehr(*words, cwd=project)
    assert "mine is finished" in done.stdout
    assert "--fresh" in done.stdout
    assert "Submitted mine to" in lehr(*words, "--fresh", cwd=project).stdout
    dashboard.jobs["mine--2"]["status"] = "FAILED"
    resubmitted = lehr(*words, cwd=project)
    assert "submission 3" in resubmitted.stdout
    fresh = [Request.from_environment(dashboard.jobs[f"mine--{n}"]["runtime_env"]["env_vars"]).fresh for n in (1, 2, 3)]
    assert fresh == [False, True, False]
    assert sum(method == "PUT" for method, _ in dashboard.asked) == 1, "the same folder is uploaded once"

    dashboard.jobs["mine--3"]["status"] = "STOPPED"
    resumed = lehr("resume", "mine", "--cluster", dashboard.address, "--no-wait", cwd=project.parent)
    assert "submission 4" in resumed.stdout, resumed.stderr
    listed = lehr("jobs", "--json", "--cluster", dashboard.address, cwd=project).stdout.splitlines()
    rows = [json.loads(line) for line in listed]
    assert [row["name"] for row in rows] == ["mine", "mine-lr-0.5", "mine", "mine", "mine"]
    assert rows[0]["folder"] == str(project / "jobs/runs/mine")


def test_the_job_stays_the_same_job_wherever_it_runs(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(job.parents[1])
    loaded = load("jobs/mine.yaml")
    request = request_of(loaded, working_folder(loaded, None))
    assert request.root == str(job.parents[1])
    assert request.folder == str(job.parent)
    assert request.job["storage"] == str(job.parent / "runs")
    monkeypatch.setenv("LEHR_SUBMISSION", request.runtime_env()["env_vars"]["LEHR_SUBMISSION"])
    monkeypatch.chdir("/")
    found = request.load()
    assert to_dict(found) == {**to_dict(loaded), "name": "mine"}
    assert found.folder == job.parent


def test_the_folder_to_upload_contains_the_job_file(job: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = load(job)
    monkeypatch.chdir(tmp_path)
    assert working_folder(loaded, None) == tmp_path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert working_folder(loaded, None) == job.parent
    assert working_folder(loaded, job.parents[1]) == job.parents[1]
    with pytest.raises(LehrError, match="does not contain the job file"):
        working_folder(loaded, elsewhere)


def test_small_data_are_uploaded_and_run_folders_are_not(job: Path) -> None:
    (job.parent / "photos").mkdir()
    (job.parent / "photos/a.png").write_text("x")
    (job.parent / "runs/mine").mkdir(parents=True)
    (job.parent / "runs/mine/log.txt").write_text("x")
    (job.parent / ".gitignore").write_text("photos\n")
    loaded = load(job, {"data": {"source": "images", "path": "photos"}})
    paths = data_paths(loaded)
    loaded = load(job, {"data": {"source": "images", "path": str(job.parent / "photos")}})
    assert list(paths) == ["data.path"]
    assert "photos/a.png" in package_of(loaded, job.parent).files
    assert not [name for name in package_of(loaded, job.parent).files if name.startswith("runs")]


def test_a_copied_path_is_found_where_the_copy_is(tmp_path: Path) -> None:
    (tmp_path / "copy/lehr-job/data").mkdir(parents=True)
    (tmp_path / "copy/lehr-job/data/a.txt").write_text("x")
    paths = ["/home/me/data/a.txt", "/home/me/gone", "/home/men/x"]
    code = f"from lehr.paths import packaged_path; print(*map(packaged_path, {paths}))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path / "copy",
        env={**os.environ, "LEHR_ROOT": "/home/me"},
    ).stdout.split()  # fmt: skip
    assert printed == [str(tmp_path / "copy/lehr-job/data/a.txt"), "/home/me/gone", "/home/men/x"]


def test_the_clusters_token_is_not_uploaded_with_the_working_folder(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job.parent / "token").write_text("secret")
    assert "token" in package_of(load(job), job.parent).files
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(job.parent / "token"))
    assert "token" not in package_of(load(job), job.parent).files
    (job.parent / "state").mkdir()
    (job.parent / "state/cluster.log").write_text("grows while it is packed")
    monkeypatch.setenv("LEHR_STATE", str(job.parent / "state"))
    assert "state/cluster.log" not in package_of(load(job), job.parent).files


@pytest.mark.parametrize(
    ("status", "change", "action"),
    [
        ("finished", {}, "nothing"),
        ("finished", {"notes": "x"}, "nothing"),
        ("finished", {"train.epochs": 4}, "submit"),  # has something left to do, as it has with lehr run
        ("finished", {"optimizer.lr": 0.5}, "submit"),  # the driver, which sees the run folder, decides
        ("failed", {}, "submit"),
        ("stopped", {}, "submit"),
        ("running", {}, "attach"),
        ("pending", {"workers.count": 2}, "attach"),
        ("running", {"train.epochs": 4}, "with other settings (train.epochs: 2 -> 4)"),
    ],
)
def test_what_may_change_under_one_name_decides_what_is_done(
    job: Path, status: str, change: dict[str, object], action: str
) -> None:
    jobs = RayJobs("http://head:8265")
    known = request_of(load(job, {"name": "mine"}), job.parent)
    existing = Submission("mine--1", "mine", 1, status, request=known)  # type: ignore[arg-type]
    request = replace(known, job={**known.job, **to_dict(load(job, {"name": "mine", **change}))})
    if action in ("submit", "attach", "nothing"):
        assert next_action(request, existing, jobs) == action
        return
    with pytest.raises(LehrError, match=re.escape(action)):
        next_action(request, existing, jobs)


def test_a_finished_search_with_another_budget_is_submitted_again(tmp_path: Path) -> None:
    text = "kind: search\nname: mine\nspace: {optimizer.lr: [0.1, 0.2]}\nbudget: 10\n"
    (tmp_path / "search.yaml").write_text(text)
    jobs = RayJobs("http://head:8265")
    known, larger = (request_of(load(tmp_path / "search.yaml", {"budget": b}), tmp_path) for b in (10, 20))
    existing = Submission("mine--1", "mine", 1, "finished", request=known)
    assert next_action(known, existing, jobs) == "nothing"
    assert next_action(larger, existing, jobs) == "submit"


# ── what travels ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_lists_everything_that_would_be_sent_and_needs_no_cluster(
    dashboard: Dashboard, job: Path, tmp_path: Path
) -> None:
    project = job.parents[1]
    (project / ".env").write_text("PASSWORD=canary\n")
    (project / "elsewhere").symlink_to(tmp_path)
    (project / "requirements.txt").write_text("--index-url https://me:canary@host/simple\ntimm==1.0\n")
    words = ("submit", "jobs/mine.yaml", "--dry-run", "--pip", "requirements.txt", "--env", "HF_TOKEN=canary")
    done = lehr(*words, cwd=project)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["jobs/mine.yaml", "nets.py"]
    assert re.search(r"\n  requirements.txt +looks like a secret: an address with credentials", done.stdout)
    assert re.search(r"\n  \.env +looks like a secret: ", done.stdout)
    assert re.search(rf"\n  elsewhere/ +leads out of the folder: to {re.escape(str(tmp_path))}", done.stdout)
    assert "environment variables: HF_TOKEN\n" in done.stdout
    assert "requirements: --index-url https://…@host/simple, timm==1.0\n" in done.stdout
    assert "would be refused: --env: HF_TOKEN looks like a secret" in done.stdout
    assert lines[-1] == "Nothing was sent."
    assert "canary" not in done.stdout + done.stderr
    assert dashboard.asked == []


def test_what_is_left_out_is_told_and_what_is_named_goes_along_and_again_at_a_resume(
    dashboard: Dashboard, job: Path
) -> None:
    project = job.parents[1]
    (project / ".env").write_text("x")
    (project / "tls.pem").write_text("x")
    words = ("submit", "jobs/mine.yaml", "--cluster", dashboard.address, "--no-wait", "--include", "tls.pem")
    sent = lehr(*words, cwd=project)
    assert sent.stdout.splitlines()[:2] == [
        "left out, since they look like secrets: .env; what the job needs must be named: --include PATH",
        f"3 files, 1 KiB, from {project}: uploaded",
    ]
    dashboard.jobs["mine--1"]["status"] = "FAILED"
    resumed = lehr("resume", "mine", "--cluster", dashboard.address, "--no-wait", cwd=project)
    assert "3 files, 1 KiB" in resumed.stdout
    assert len(dashboard.packages) == 1
    gone = lehr("submit", "jobs/mine.yaml", "--include", "gone", "--dry-run", cwd=project)
    assert gone.returncode == 2
    assert gone.stderr == f"--include: gone is not in {project}, so it cannot be uploaded\n"


@pytest.mark.parametrize(
    ("words", "requirements", "sentence"),
    [
        (["--env", "HF_TOKEN=canary"], "", "--env: HF_TOKEN looks like a secret, and what is sent with a job stays"),
        (["--env", "URL=postgres://me:canary@host"], "", "--env: URL looks like a secret"),
        (["--env", "RAY_AUTH_MODE=canary"], "", "--env: RAY_AUTH_MODE looks like a secret"),
        (["--env", "=canary"], "", '--env: "a pair without a name" is not NAME=VALUE'),
        (["--pip", "r.txt"], "-i https://me:canary@host/simple\n", "--pip: -i https://…@host/simple holds credentials"),
        (
            ["--pip", "r.txt"],
            "x @ git+https://canary@host/x.git",
            "write ${NAME} instead, which pip takes from",
        ),
        (["--pip", "r.txt"], "-r other.txt\n", "--pip: r.txt: -r other.txt is a file on this machine"),
        (["--pip", "r.txt"], "-e .\n", "--pip: r.txt: -e . is a file on this machine"),
        (["--pip", "r.txt"], "x --hash=sha256:0\n" * 7000, "and Ray passes on at most 100 KiB; leave out the hashes"),
    ],
)
def test_secrets_are_refused_with_the_safe_way_before_anything_is_sent(
    dashboard: Dashboard, job: Path, words: list[str], requirements: str, sentence: str
) -> None:
    (job.parents[1] / "r.txt").write_text(requirements)
    done = lehr("submit", "jobs/mine.yaml", "--cluster", dashboard.address, *words, cwd=job.parents[1])
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr
    assert "POST" not in {method for method, _ in dashboard.asked}


def test_requirements_travel_as_pip_reads_them(job: Path, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(
        "\ufeff--require-hashes  # strict\n# a comment\n"
        "--index-url https://me:${PIP_TOKEN}@host/simple\n"
        "timm==1.0 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n"
        "x @ https://host/x.whl#sha256=ef\n"
    )
    assert read_requirements(tmp_path / "r.txt") == (
        "--require-hashes",
        "--index-url https://me:${PIP_TOKEN}@host/simple",
        "timm==1.0 --hash=sha256:ab --hash=sha256:cd",
        "x @ https://host/x.whl#sha256=ef",
    )


def test_no_job_is_made_with_credentials_anywhere_in_it(job: Path) -> None:
    for change in (
        {"storage": "s3://KEY:with/slash@bucket/runs"},
        {"data": {"source": "images", "path": "https://bucket/x?X-Amz-Signature=abc"}},
        {"model": {"name": "my_nets:Net", "url": "https://me:word@host/weights"}},
    ):
        with pytest.raises(JobError, match="holds a password; allowed: credentials in the environment"):
            load(job, change)
