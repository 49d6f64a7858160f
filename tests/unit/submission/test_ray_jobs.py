"""Jobs of a Ray cluster through the Jobs API, against a server that answers as Ray's does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dashboard import Dashboard

from lehr.errors import ClusterError
from lehr.submission.backend import ENTRYPOINT, Request, entrypoint, newest
from lehr.submission.check_result import CheckResult, Finding
from lehr.submission.package import Package, package
from lehr.submission.ray_jobs import RayJobs

REQUEST = Request("mine", {"kind": "train", "storage": "s3://b/runs"}, "/home/me", "/home/me/jobs", stop_wait=7)


def small(tmp_path: Path) -> Package:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code/net.py").write_text("x = 1\n")
    return package(tmp_path / "code")


def test_a_job_is_submitted_with_its_folder_its_environment_and_its_name(dashboard: Dashboard, tmp_path: Path) -> None:
    jobs = RayJobs(dashboard.address, lambda: small(tmp_path))
    sent = jobs.submit(REQUEST)
    assert jobs.uploaded
    (asked,) = dashboard.jobs.values()
    assert asked["metadata"]["job_name"] == "mine"  # what the dashboard shows as the name
    assert asked["entrypoint"] == f"{ENTRYPOINT}  # train mine; report: s3://b/runs/mine/report.html"
    assert asked["runtime_env"]["working_dir"] == f"gcs://{small(tmp_path).name}"
    variables = asked["runtime_env"]["env_vars"]
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"  # on every worker, which would be ten times slower without
    assert variables["RAY_JOB_STOP_WAIT_TIME_S"] == "7"
    assert Request.from_environment(variables) == REQUEST
    (listed,) = jobs.jobs()
    assert (listed.run, listed.number, listed.status, listed.request) == ("mine", 1, "pending", REQUEST)
    assert newest(jobs, "mine") == newest(jobs, sent.id) == listed

    dashboard.jobs[sent.id]["status"] = "FAILED"
    assert jobs.submit(REQUEST, sent).number == 2
    assert not jobs.uploaded  # the cluster has it already
    assert [method for method, _ in dashboard.asked].count("PUT") == 1


def test_two_clients_that_submit_a_run_at_once_get_one_job(dashboard: Dashboard, tmp_path: Path) -> None:
    made = small(tmp_path)
    clients = [RayJobs(dashboard.address, lambda: made) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        first = {each.id for each in pool.map(lambda client: client.submit(REQUEST), clients)}
    assert first == {"mine--1"}
    assert len(dashboard.jobs) == 1
    dashboard.jobs["mine--1"]["status"] = "FAILED"
    before = newest(clients[0], "mine")
    assert {client.submit(REQUEST, before).id for client in clients} == {"mine--2"}
    assert len(dashboard.jobs) == 2


def test_finished_checks_are_removed_from_the_clusters_list(dashboard: Dashboard) -> None:
    jobs, check = RayJobs(dashboard.address), replace(REQUEST, only_check=True)
    over, running = jobs.submit(check), jobs.submit(check)
    dashboard.jobs[over.id]["status"] = "SUCCEEDED"
    jobs.submit(REQUEST)
    dashboard.jobs["mine--1"]["status"] = "SUCCEEDED"
    latest = jobs.submit(check)
    assert list(dashboard.jobs) == [running.id, "mine--1", latest.id]
    assert [each.run for each in jobs.jobs()] == ["mine"]  # a check is not listed among the jobs


def test_a_package_is_refused_where_the_cluster_accepts_less(dashboard: Dashboard, tmp_path: Path) -> None:
    made = small(tmp_path)
    name = f"/api/packages/gcs/{made.name}"
    asked = dashboard.handle

    def full(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        return (413, "Maximum request body size exceeded") if method == "PUT" else asked(method, path, body, headers)

    dashboard.handle = full  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"too large for a cluster .* net.py"):
        RayJobs(dashboard.address, lambda: made).submit(REQUEST)
    assert name.rpartition("/")[2] not in dashboard.packages


def test_logs_leave_out_the_lines_that_ray_prints_first(dashboard: Dashboard) -> None:
    sent = RayJobs(dashboard.address).submit(REQUEST)
    dashboard.logs[sent.id] = (
        "2026-11-22 23:59:59,876\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        f"Running entrypoint for job {sent.id}: {ENTRYPOINT}\nepoch 1/3\n"
    )
    assert RayJobs(dashboard.address).logs(sent) == "epoch 1/3\n"


def test_jobs_that_others_submitted_are_left_out(dashboard: Dashboard) -> None:
    dashboard.jobs["raysubmit_1"] = {"submission_id": "raysubmit_1", "status": "RUNNING", "metadata": None}
    dashboard.jobs["driver"] = {"submission_id": None, "job_id": "01", "status": "RUNNING", "metadata": {}}
    assert RayJobs(dashboard.address).jobs() == []


def test_a_request_survives_the_environment_that_carries_it() -> None:
    whole = Request("r", {"kind": "train", "notes": "ü\n"}, "/a", "/a/b", env={"A": "1"}, pip=("timm==1.0",), retries=0)
    environment = whole.runtime_env()
    assert Request.from_environment(environment["env_vars"]) == whole
    assert environment["pip"] == ["timm==1.0"]
    assert environment["env_vars"]["A"] == "1"
    assert json.loads(environment["env_vars"]["LEHR_SUBMISSION"])["run"] == "r"


def test_a_request_of_another_version_keeps_the_fields_that_both_know() -> None:
    text = json.dumps({**json.loads(REQUEST.write()), "from_the_future": 1})
    assert Request.read(text) == REQUEST


def test_the_result_of_a_check_is_read_from_the_log_and_not_shown_in_it(dashboard: Dashboard) -> None:
    jobs = RayJobs(dashboard.address)
    sent = jobs.submit(REQUEST)
    assert jobs.check_result(sent) is None
    result = CheckResult((Finding("warning", "it is", "so", "what"),), 2.0)
    dashboard.logs[sent.id] = f"warning: not ours\n{result.write(REQUEST.check_token)}\nepoch 1/3\n"
    assert jobs.check_result(sent) == result
    assert jobs.logs(sent) == "warning: not ours\nepoch 1/3\n"


def test_what_the_dashboard_shows_of_a_job_stays_a_comment() -> None:
    job = {"kind": "train", "storage": "/runs\nrm -rf /\n#"}
    shown = entrypoint(replace(REQUEST, job=job))
    assert shown.startswith(f"{ENTRYPOINT}  # train mine; report: /runs")
    assert len(shown.splitlines()) == 1
