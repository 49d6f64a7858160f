"""`lehr cluster down` ends what `lehr cluster up` started and nothing else: real processes stand for Ray's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.dashboard import Dashboard

from lehr.errors import LehrError
from lehr.processes import MARK, Process, process
from lehr.ray_cluster import folders, local_cluster

# A leader with a child in its session, and one that has moved to a process group of its own, as Ray's raylet does.
LEADER = """\
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
one, two = subprocess.Popen(sleep), subprocess.Popen(sleep, preexec_fn=os.setpgrp)
print(one.pid, two.pid, flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(local_cluster, "STOP_SECONDS", 1.0)


def started() -> tuple[subprocess.Popen[str], list[int]]:
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout
    with leader.stdout as output:
        return leader, [int(pid) for pid in output.readline().split()]


def record(*leaders: Process) -> None:
    folders.make_state_folder()
    local_cluster.LocalCluster("http://127.0.0.1:1", "127.0.0.1:2", leaders, "log").write()


def gone(pid: int) -> bool:
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("leader_dies_first", [False, True])
def test_down_ends_every_process_of_its_sessions_and_no_other(leader_dies_first: bool) -> None:
    leader, children = started()
    other, others = started()
    record(process(leader.pid))
    assert local_cluster.running() is not None
    if leader_dies_first:
        leader.kill()
        leader.wait()
        assert local_cluster.running() is None
    local_cluster.stop()
    assert all(gone(pid) for pid in children)
    assert leader.wait(timeout=5) is not None
    assert other.poll() is None
    assert all(psutil.pid_exists(pid) for pid in others)
    for pid in (*others, other.pid):
        psutil.Process(pid).kill()
    with pytest.raises(LehrError, match="there is no local cluster to stop"):
        local_cluster.stop()


@pytest.mark.parametrize("step", [1, -86400])
def test_down_ends_the_cluster_although_the_clock_was_set_meanwhile(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, children = started()
    record(process(leader.pid))
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + step)
    assert local_cluster.running() is not None
    local_cluster.stop()
    assert leader.wait(timeout=5) is not None
    assert all(gone(pid) for pid in children)


@pytest.mark.parametrize("change", [{"started": 1}, {"machine": "0123456789abcdef"}], ids=["reused", "container"])
def test_a_process_with_the_id_of_ours_is_left_alone(change: dict[str, Any]) -> None:
    other, others = started()
    record(replace(process(other.pid), **change))
    assert local_cluster.running() is None
    local_cluster.stop()
    assert other.poll() is None
    for pid in (*others, other.pid):
        psutil.Process(pid).kill()


def test_a_second_cluster_and_a_port_in_use_are_refused() -> None:
    leader, children = started()
    record(process(leader.pid))
    with pytest.raises(LehrError, match=r"already running at http://127.0.0.1:1; stop it with: lehr cluster down"):
        local_cluster.start()
    for pid in (*children, leader.pid):
        psutil.Process(pid).kill()
    leader.wait()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LehrError, match="is in use; choose another one with --port"):
            local_cluster.start(port=taken.getsockname()[1])


def test_jobs_find_this_python_first_and_no_other_cluster() -> None:
    found = local_cluster._environment(
        {"PATH": "/usr/bin", "RAY_ADDRESS": "elsewhere:1", "KEEP": "1", MARK: str(process(1))}, "http://127.0.0.1:9"
    )
    assert found["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert "RAY_ADDRESS" not in found
    assert MARK not in found, "a cluster that a notebook starts must outlive the notebook"
    assert (found["KEEP"], found["RAY_PROMETHEUS_HOST"]) == ("1", "http://127.0.0.1:9")


def test_prometheus_scrapes_this_cluster_whatever_other_ray_runs_here(
    monkeypatch: pytest.MonkeyPatch, dashboard: Dashboard
) -> None:
    monkeypatch.setattr(local_cluster, "_launch", lambda cluster, command, environment: cluster)
    dashboard.answer["/api/version"] = (200, json.dumps({"ray_version": "2.60.0", "session_name": "session_7"}))
    local_cluster._start_prometheus(
        local_cluster.LocalCluster(dashboard.address, "127.0.0.1:2", (), "log", "http://127.0.0.1:9"),
        {},
        Path("/t/ray"),
    )
    config = yaml.safe_load((folders.state_folder() / "monitoring/prometheus/prometheus.yml").read_text())
    (targets,) = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert targets == "/t/ray/session_7/prom_metrics_service_discovery.json"


def test_a_cluster_asks_for_a_token_from_its_first_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever process of Ray is started first, the token is there and its environment says that it asks for one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    seen: list[dict[str, str]] = []

    def launch(cluster: local_cluster.LocalCluster, command: list[str], environment: dict[str, str]) -> None:
        token = Path(environment["RAY_AUTH_TOKEN_PATH"])
        assert len(token.read_text()) == 64
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.parent.stat().st_mode & 0o777 == 0o700
        seen.append({**environment, "command": " ".join(command)})
        raise LehrError("enough")

    monkeypatch.setattr(local_cluster, "_launch", launch)
    with pytest.raises(LehrError, match="enough"):
        local_cluster.start()
    (environment,) = seen
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "--dashboard-host=127.0.0.1 " in environment["command"]
    assert "--node-ip-address=127.0.0.1 " in environment["command"]
    (state,) = [folders.state_folder()]
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()} == {"cluster.log": 0o600}


def test_a_cluster_without_a_token_is_not_opened_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(LehrError, match=r"RAY_AUTH_MODE=disabled would let everyone who reaches 0.0.0.0 run commands"):
        local_cluster.start(host="0.0.0.0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(LehrError, match=r"--host 203.0.113.7 is no address of this machine"):
        local_cluster.start(host="203.0.113.7")


def test_a_record_is_of_its_owner_only_and_that_of_another_user_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leader, children = started()
    record(process(leader.pid))
    (file,) = folders.state_folder().iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert local_cluster.running() is not None
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert local_cluster.running() is None, "its address would get this user's token"
    monkeypatch.undo()
    for pid in (*children, leader.pid):
        psutil.Process(pid).kill()
    leader.wait()
