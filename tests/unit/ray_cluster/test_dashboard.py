"""A cluster's dashboard as we ask it: where its address and its token come from, and what its refusals become."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.dashboard import Dashboard

from lehr.errors import ClusterError
from lehr.ray_cluster.dashboard import DashboardClient, dashboard_address


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
def test_a_token_is_sent_and_never_shown(
    token: str | None, given: str | None, sentence: str | None, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.token = token
    if given:
        monkeypatch.setenv("RAY_AUTH_TOKEN", given)
    if sentence is None:
        assert DashboardClient(dashboard.address).call("GET", "/api/jobs/") == []
        return
    with pytest.raises(ClusterError) as refused:
        DashboardClient(dashboard.address).call("GET", "/api/jobs/")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert given is None or given not in str(refused.value)


def test_a_token_is_looked_for_where_ray_looks_and_in_the_same_order(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent() -> str | None:
        DashboardClient(dashboard.address).call("GET", "/api/jobs/")
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
    with pytest.raises(ClusterError, match="redirects elsewhere"):
        DashboardClient(dashboard.address).call("GET", "/api/jobs/")
    assert [path for _, path in dashboard.asked] == ["/api/jobs/"]


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        ("/api/jobs/", (500, "Traceback …\n  File …\nValueError: the head is full"), "the head is full"),
        ("/api/jobs/", (404, "404: Not Found"), "there is no Ray dashboard"),
        ("/api/jobs/", (503, ""), "answered 503: no reason given"),
    ],
)
def test_a_refusal_is_one_sentence(path: str, answer: tuple[int, str], sentence: str, dashboard: Dashboard) -> None:
    dashboard.answer[path] = answer
    with pytest.raises(ClusterError) as refused:
        DashboardClient(dashboard.address).call("GET", "/api/jobs/")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_cluster_that_does_not_answer_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match=r"http://127.0.0.1:9: no Ray cluster answers there: Connection refused"):
        DashboardClient("http://127.0.0.1:9").version()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
    ],
)
def test_an_address_may_leave_out_the_protocol(given: str, found: str) -> None:
    assert dashboard_address(given) == found


@pytest.mark.parametrize("given", ["ray://head:10001", "http://", "head:port", "http://me:secret@head:8265"])
def test_an_address_of_another_kind_is_refused_without_repeating_a_secret(given: str) -> None:
    with pytest.raises(ClusterError) as refused:
        dashboard_address(given)
    assert "secret" not in str(refused.value)


def test_the_address_comes_from_the_flag_the_environment_or_the_local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://from-environment:1")
    assert dashboard_address(None, "http://local:1") == "http://from-environment:1"
    assert dashboard_address("http://flag:1") == "http://flag:1"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert dashboard_address(None, "http://local:1") == "http://local:1"
    with pytest.raises(ClusterError, match="lehr cluster up"):
        dashboard_address(None)
