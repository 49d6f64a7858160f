"""`lehr monitor install`: idempotent, careful with the user's own changes, and all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import free_port

from lehr.cli import main
from lehr.monitoring.dashboards import dashboards
from lehr.monitoring.grafana import GrafanaError, connect

from .grafana_server import TOKEN, GrafanaServer, serving

PROMETHEUS = "http://prometheus:9090"
OURS = ["lehr-runs", "lehr-search", "lehr-cluster"]


@pytest.fixture
def server() -> Iterator[GrafanaServer]:
    with serving() as found:
        yield found


def install(server: GrafanaServer, boards: list[dict[str, Any]] | None = None, **options: Any) -> list[str]:
    """The outcome of each step of an installation, in order."""
    grafana = connect(server.url, environment={"LEHR_GRAFANA_TOKEN": TOKEN})
    options = {"prometheus": PROMETHEUS, **options}
    return [c.state for c in grafana.install(dashboards() if boards is None else boards, **options)]


def refused(server: GrafanaServer, **options: Any) -> str:
    before = server.state()
    with pytest.raises(GrafanaError) as caught:
        install(server, **options)
    assert server.state() == before, "something was left behind"
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_first_installation_creates_everything_and_the_second_changes_nothing(server: GrafanaServer) -> None:
    assert install(server) == ["created"] * 5
    assert list(server.dashboards) == OURS
    assert {d["meta"]["folderUid"] for d in server.dashboards.values()} == {"lehr"}
    assert server.sources[0]["url"] == PROMETHEUS
    writes = list(server.writes)
    assert install(server) == ["unchanged"] * 5
    assert server.writes == writes


def test_only_the_changed_dashboard_is_updated(server: GrafanaServer) -> None:
    install(server)
    changed = dashboards()
    changed[1]["refresh"] = "1m"
    assert install(server, changed) == ["unchanged"] * 3 + ["updated", "unchanged"]
    assert server.dashboards["lehr-search"]["dashboard"]["refresh"] == "1m"
    assert server.dashboards["lehr-search"]["dashboard"]["version"] == 2


def test_a_dashboard_that_was_changed_by_hand_is_kept_unless_forced(server: GrafanaServer) -> None:
    install(server)
    server.save_by_hand("lehr-runs", title="mine now")
    changed = dashboards()
    changed[0]["refresh"] = changed[1]["refresh"] = "1m"
    sentence = refused(server, boards=changed)
    assert 'dashboard "lehr runs" was changed by hand' in sentence
    assert "--force" in sentence
    assert install(server, changed, force=True)[2:] == ["updated", "updated", "unchanged"]
    assert server.dashboards["lehr-runs"]["dashboard"]["title"] == "lehr runs"


def test_ray_dashboards_that_somebody_else_installed_are_kept(server: GrafanaServer) -> None:
    others = [{"uid": "rayDefaultDashboard", "title": "Default"}, {"uid": "rayTrainDashboard", "title": "Train"}]
    server._save({"dashboard": {**others[0], "theirs": True}, "folderUid": "ray", "message": ""})
    assert install(server, others=others)[-2:] == ["unchanged", "created"]
    assert server.dashboards["rayDefaultDashboard"]["dashboard"]["theirs"]
    newer = [{**other, "panels": []} for other in others]
    assert install(server, others=newer)[-2:] == ["unchanged", "updated"]


def test_a_dashboard_that_was_moved_stays_in_its_new_folder(server: GrafanaServer) -> None:
    install(server)
    server.dashboards["lehr-runs"]["meta"]["folderUid"] = "my-team"
    changed = dashboards()
    changed[0]["refresh"] = "1m"
    install(server, changed)
    assert server.dashboards["lehr-runs"]["meta"]["folderUid"] == "my-team"


def test_a_data_source_that_points_elsewhere_is_kept_unless_forced(server: GrafanaServer) -> None:
    install(server)
    sentence = refused(server, prometheus="http://other:9090")
    assert "points to http://prometheus:9090" in sentence
    assert "--force" in sentence
    assert install(server, prometheus="http://other:9090", force=True)[1] == "updated"
    assert server.sources[0]["url"] == "http://other:9090"


def test_without_an_address_an_existing_prometheus_is_used(server: GrafanaServer) -> None:
    assert "no Prometheus data source; name one with --prometheus" in refused(server, prometheus=None)
    server.sources.append({"id": 1, "name": "theirs", "type": "prometheus", "url": "http://there"})
    assert install(server, prometheus=None) == ["created", "unchanged", "created", "created", "created"]
    assert [source["name"] for source in server.sources] == ["theirs"]


MISMATCH = {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}


@pytest.mark.parametrize("call", ["POST /api/folders", "POST /api/datasources", "POST /api/dashboards/db"])
@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, {"message": "Unauthorized"}, "the token is not valid (401)"),
        (403, {"message": "You'll need additional permissions"}, "the token lacks the permission (403)"),
        (404, {"message": "Not found"}, "it does not exist (404)"),
        (412, MISMATCH, "somebody else has just changed it (412)"),
        (500, {"message": "Internal server error"}, 'it failed with 500, "Internal server error"'),
        (502, "<html>Bad gateway</html>", "it failed with 502"),
        (200, "<html>Log in</html>", "answers, but not like a Grafana"),
        (0, None, "no server answers there"),
    ],
)
def test_a_failed_write_is_one_sentence_and_earlier_steps_are_undone(
    server: GrafanaServer, call: str, status: int, body: Any, says: str
) -> None:
    server.fails[call] = (status, body)
    sentence = refused(server)
    assert says in sentence
    assert sentence.endswith("nothing was changed")


@pytest.mark.parametrize("call", ["PUT /api/datasources/1", "POST /api/dashboards/db"])
@pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 500, 0])
def test_a_failed_forced_update_restores_the_previous_state(server: GrafanaServer, call: str, status: int) -> None:
    install(server)
    server.save_by_hand("lehr-runs", title="mine now")
    server.fails[call] = (status, {"message": "no"})
    assert refused(server, prometheus="http://other:9090", force=True).startswith(f"{server.url} did not update the ")


def test_an_update_that_fails_half_way_restores_the_previous_state(server: GrafanaServer) -> None:
    install(server)
    changed = dashboards()
    for board in changed[:2]:
        board["refresh"] = "1m"
    original, saves = server.save_dashboard, 0

    def fail_second(body: Any) -> tuple[int, Any]:
        nonlocal saves
        saves += 1
        return (500, {"message": "disk full"}) if saves == 2 else original(body)

    server.save_dashboard = fail_second  # type: ignore[method-assign]
    assert 'did not update the dashboard "lehr search": it failed with 500, "disk full"' in refused(
        server, boards=changed
    )
    server.save_dashboard = original  # type: ignore[method-assign]
    assert install(server) == ["unchanged"] * 5


def test_a_change_between_reading_and_saving_is_not_overwritten(server: GrafanaServer) -> None:
    install(server)
    changed = dashboards()
    changed[0]["refresh"] = "1m"
    original = server.versions

    def meanwhile(uid: str) -> tuple[int, Any]:
        answer = original(uid)
        if uid == "lehr-cluster" and len(server.history["lehr-runs"]) == 1:
            server.save_by_hand("lehr-runs", title="just saved")
        return answer

    server.versions = meanwhile  # type: ignore[method-assign]
    with pytest.raises(GrafanaError, match="somebody else has just changed it"):
        install(server, changed)
    assert server.dashboards["lehr-runs"]["dashboard"]["title"] == "just saved"


def test_the_message_names_what_could_not_be_undone(server: GrafanaServer) -> None:
    server.fails["POST /api/dashboards/db"] = (500, {"message": "gone"})
    server.fails["DELETE /api/folders/lehr"] = (0, None)
    with pytest.raises(GrafanaError, match=r'could not be undone: folder "lehr"$'):
        install(server)


@pytest.mark.parametrize(
    ("call", "status", "body", "says"),
    [
        ("GET /api/health", 404, "404 page not found", "it does not exist (404); check the address and its path"),
        ("GET /api/health", 200, {"hello": 1}, "answers, but not like a Grafana"),
        ("GET /api/org", 401, {"message": "Invalid API key"}, "did not accept the token: the token is not valid (401)"),
        ("GET /api/folders/lehr", 403, {"message": "Access denied"}, 'look for the folder "lehr"'),
        ("GET /api/folders/lehr", 500, {"message": "x"}, "it failed with 500"),
    ],
)
def test_a_failed_read_is_one_sentence_and_nothing_is_written(
    server: GrafanaServer, call: str, status: int, body: Any, says: str
) -> None:
    server.fails[call] = (status, body)
    assert says in refused(server)
    assert server.writes == []


@pytest.mark.parametrize(
    ("url", "environment", "says"),
    [
        ("grafana:3000", {"LEHR_GRAFANA_TOKEN": "t"}, "is not a Grafana address; allowed: http://HOST:PORT"),
        ("http://", {"LEHR_GRAFANA_TOKEN": "t"}, "is not a Grafana address"),
        ("http://here:port", {"LEHR_GRAFANA_TOKEN": "t"}, "is not a Grafana address"),
        ("http://admin:admin@here", {"LEHR_GRAFANA_TOKEN": "t"}, "not in the address of Grafana"),
        ("http://here", {}, "no token for Grafana; set LEHR_GRAFANA_TOKEN"),
        ("http://here", {"LEHR_GRAFANA_TOKEN_FILE": "nowhere"}, "nowhere: the token cannot be read: No such file"),
        ("http://here", {"LEHR_GRAFANA_TOKEN": "two\nlines"}, "must be one line of ASCII text"),
    ],
)
def test_a_wrong_address_or_token_is_rejected_before_any_request(
    url: str, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(GrafanaError) as caught:
        connect(url, environment=environment)
    assert says in str(caught.value)


def test_a_dead_host_is_one_sentence() -> None:
    grafana = connect(f"http://127.0.0.1:{free_port()}", environment={"LEHR_GRAFANA_TOKEN": TOKEN})
    with pytest.raises(
        GrafanaError, match=r"^http://127.0.0.1:\d+ did not pass the health check: no server answers there$"
    ):
        grafana.install(dashboards())


def test_the_command_reads_the_token_from_a_file_and_serves_a_grafana_below_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving("/grafana") as server:
        options = ["--grafana", f"{server.url}/", "--token-file", "token", "--prometheus", PROMETHEUS]
        monkeypatch.setattr("sys.argv", ["lehr", "monitor", "install", *options])
        with pytest.raises(SystemExit) as ended:
            main.run_command()
        assert ended.value.code == 0
        assert list(server.dashboards) == [*OURS, "rayDefaultDashboard", "rayDataDashboard", "rayTrainDashboard"]
        assert capsys.readouterr().out.splitlines()[:2] == [
            'created    folder "lehr"',
            'created    data source "lehr-prometheus"',
        ]
        (tmp_path / "token").write_text("wrong")
        with pytest.raises(SystemExit) as ended:
            main.run_command()
        assert ended.value.code == 1
        assert capsys.readouterr().err == f"{server.url} did not accept the token: the token is not valid (401)\n"
