"""The Jobs API as we use it, against a server that answers as Ray's does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dashboard import Dashboard

from lehr.submission.backend import ENTRYPOINT, Request, newest
from lehr.submission.package import Package, package
from lehr.submission.ray_jobs import ClusterError, RayJobs, dashboard_address

REQUEST = Request("mine", {"kind": "train", "storage": "s3://b/runs"}, "/home/me", "/home/me/jobs", stop_wait=7)


def small(tmp_path: Path) -> Package:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code/net.py").write_text("x = 1\n")
    return package(tmp_path / "code")


def test_a_job_is_sent_with_its_folder_its_environment_and_its_name(dashboard: Dashboard, tmp_path: Path) -> None:
    jobs = RayJobs(dashboard.address, lambda: small(tmp_path))
    sent = jobs.submit(REQUEST)
    assert jobs.uploaded
    (asked,) = dashboard.jobs.values()
    assert asked["metadata"]["job_name"] == "mine"  # where the dashboard shows a name
    assert asked["entrypoint"] == ENTRYPOINT
    assert asked["runtime_env"]["working_dir"] == f"gcs://{small(tmp_path).name}"
    variables = asked["runtime_env"]["env_vars"]
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"  # must hold on every worker, or they are ten times slower
    assert variables["RAY_JOB_STOP_WAIT_TIME_S"] == "7"
    assert Request.from_environment(variables) == REQUEST
    (listed,) = jobs.jobs()
    assert (listed.run, listed.number, listed.status, listed.request) == ("mine", 1, "pending", REQUEST)
    assert newest(jobs, "mine") == newest(jobs, sent.id) == listed

    dashboard.jobs[sent.id]["status"] = "FAILED"
    assert jobs.submit(REQUEST, sent).number == 2
    assert not jobs.uploaded  # the cluster has it
    assert [method for method, _ in dashboard.asked].count("PUT") == 1


def test_two_clients_that_send_a_run_at_once_get_one_job(dashboard: Dashboard, tmp_path: Path) -> None:
    clients = [RayJobs(dashboard.address, lambda: small(tmp_path)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        first = {each.id for each in pool.map(lambda client: client.submit(REQUEST), clients)}
    assert first == {"mine--1"}
    assert len(dashboard.jobs) == 1
    dashboard.jobs["mine--1"]["status"] = "FAILED"
    before = newest(clients[0], "mine")
    assert {client.submit(REQUEST, before).id for client in clients} == {"mine--2"}
    assert len(dashboard.jobs) == 2


def test_checks_that_are_over_do_not_fill_the_cluster_s_list(dashboard: Dashboard) -> None:
    jobs, look = RayJobs(dashboard.address), replace(REQUEST, only_check=True)
    over, running = jobs.submit(look), jobs.submit(look)
    dashboard.jobs[over.id]["status"] = "SUCCEEDED"
    jobs.submit(REQUEST)
    dashboard.jobs["mine--1"]["status"] = "SUCCEEDED"
    latest = jobs.submit(look)
    assert list(dashboard.jobs) == [running.id, "mine--1", latest.id]
    assert [each.run for each in jobs.jobs()] == ["mine"]  # a check is no job of lehr's


@pytest.mark.parametrize(
    ("token", "given", "sentence"),
    [
        (None, None, None),
        ("right", "right", None),
        (None, "any", None),
        ("right", None, "the cluster asks for a token, and none was found; set RAY_AUTH_TOKEN or"),
        ("right", "wrong", "the cluster does not accept this token"),
    ],
)
def test_a_token_is_sent_from_ray_s_own_places_and_never_shown(
    token: str | None, given: str | None, sentence: str | None, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.token = token
    if given:
        monkeypatch.setenv("RAY_AUTH_TOKEN", given)
    if sentence is None:
        assert RayJobs(dashboard.address).jobs() == []
        return
    with pytest.raises(ClusterError) as refused:
        RayJobs(dashboard.address).jobs()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert given is None or given not in str(refused.value)


def test_the_token_s_places_come_in_ray_s_order(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent() -> str | None:
        RayJobs(dashboard.address).jobs()
        return dashboard.headers[-1].get("authorization")

    assert sent() is None
    (tmp_path / "home/.ray").mkdir(parents=True)
    (tmp_path / "home/.ray/auth_token").write_text("from-home\n")
    assert sent() == "Bearer from-home"
    (tmp_path / "named").write_text("from-path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert sent() == "Bearer from-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-environment")
    assert sent() == "Bearer from-environment"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert sent() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with pytest.raises(ClusterError, match=r"RAY_AUTH_TOKEN_PATH: .*gone cannot be read"):
        sent()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "two\nlines")
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN does not hold a token") as refused:
        sent()
    assert "two" not in str(refused.value)


def test_a_token_does_not_follow_a_redirect(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    dashboard.answer["/api/jobs/"] = (302, f"{dashboard.address}/elsewhere")
    with pytest.raises(ClusterError, match="leads elsewhere"):
        RayJobs(dashboard.address).jobs()
    assert [path for _, path in dashboard.asked] == ["/api/jobs/"]


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        ("/api/jobs/", (500, "Traceback …\n  File …\nValueError: the head is full"), "the head is full"),
        ("/api/jobs/", (404, "404: Not Found"), "there is no Ray dashboard"),
        ("/api/jobs/", (503, ""), "answered 503: without a reason"),
    ],
)
def test_a_refusal_is_one_sentence(path: str, answer: tuple[int, str], sentence: str, dashboard: Dashboard) -> None:
    dashboard.answer[path] = answer
    with pytest.raises(ClusterError) as refused:
        RayJobs(dashboard.address).jobs()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_too_large_a_package_is_refused_even_where_the_cluster_takes_less(dashboard: Dashboard, tmp_path: Path) -> None:
    made = small(tmp_path)
    name = f"/api/packages/gcs/{made.name}"
    asked = dashboard.handle

    def full(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        return (413, "Maximum request body size exceeded") if method == "PUT" else asked(method, path, body, headers)

    dashboard.handle = full  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"too large for a cluster .* net.py"):
        RayJobs(dashboard.address, lambda: made).submit(REQUEST)
    assert name.rpartition("/")[2] not in dashboard.packages


def test_a_cluster_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match=r"http://127.0.0.1:9: no Ray cluster answers there: Connection refused"):
        RayJobs("http://127.0.0.1:9").version()


def test_logs_leave_out_ray_s_own_first_lines(dashboard: Dashboard) -> None:
    sent = RayJobs(dashboard.address).submit(REQUEST)
    dashboard.logs[sent.id] = (
        "2026-11-22 23:59:59,876\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        f"Running entrypoint for job {sent.id}: {ENTRYPOINT}\nepoch 1/3\n"
    )
    assert RayJobs(dashboard.address).logs(sent) == "epoch 1/3\n"


def test_jobs_that_others_sent_are_left_out(dashboard: Dashboard) -> None:
    dashboard.jobs["raysubmit_1"] = {"submission_id": "raysubmit_1", "status": "RUNNING", "metadata": None}
    dashboard.jobs["driver"] = {"submission_id": None, "job_id": "01", "status": "RUNNING", "metadata": {}}
    assert RayJobs(dashboard.address).jobs() == []


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
    ],
)
def test_an_address_is_a_dashboard_s(said: str, found: str) -> None:
    assert dashboard_address(said) == found


@pytest.mark.parametrize("said", ["ray://head:10001", "http://", "head:port", "http://me:secret@head:8265"])
def test_another_address_is_refused_without_repeating_a_secret(said: str) -> None:
    with pytest.raises(ClusterError) as refused:
        dashboard_address(said)
    assert "secret" not in str(refused.value)


def test_the_address_comes_from_the_flag_the_environment_or_the_local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://from-environment:1")
    assert dashboard_address(None, "http://local:1") == "http://from-environment:1"
    assert dashboard_address("http://flag:1") == "http://flag:1"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert dashboard_address(None, "http://local:1") == "http://local:1"
    with pytest.raises(ClusterError, match="lehr cluster up"):
        dashboard_address(None)


def test_a_request_survives_the_environment_it_travels_in() -> None:
    whole = Request("r", {"kind": "train", "notes": "ü\n"}, "/a", "/a/b", env={"A": "1"}, pip=("timm==1.0",), retries=0)
    environment = whole.runtime_env()
    assert Request.from_environment(environment["env_vars"]) == whole
    assert environment["pip"] == ["timm==1.0"]
    assert environment["env_vars"]["A"] == "1"
    assert json.loads(environment["env_vars"]["LEHR_SUBMISSION"])["run"] == "r"
