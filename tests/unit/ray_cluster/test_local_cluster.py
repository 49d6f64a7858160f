"""`lehr cluster down` ends what `lehr cluster up` started and nothing else: real processes stand for Ray's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from tests.dashboard import Dashboard

from lehr.errors import LehrError
from lehr.ray_cluster import local_cluster

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


def record(*leaders: tuple[int, float]) -> None:
    local_cluster.state_folder().mkdir(parents=True)
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
    record((leader.pid, psutil.Process(leader.pid).create_time()))
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


def test_a_process_that_reuses_the_id_of_ours_is_left_alone() -> None:
    other, others = started()
    record((other.pid, psutil.Process(other.pid).create_time() - 1000))
    assert local_cluster.running() is None
    local_cluster.stop()
    assert other.poll() is None
    for pid in (*others, other.pid):
        psutil.Process(pid).kill()


def test_a_second_cluster_and_a_port_in_use_are_refused() -> None:
    leader, children = started()
    record((leader.pid, psutil.Process(leader.pid).create_time()))
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
        {"PATH": "/usr/bin", "RAY_ADDRESS": "elsewhere:1", "KEEP": "1"}, "http://127.0.0.1:9"
    )
    assert found["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert "RAY_ADDRESS" not in found
    assert (found["KEEP"], found["RAY_PROMETHEUS_HOST"]) == ("1", "http://127.0.0.1:9")


def test_prometheus_scrapes_this_cluster_whatever_other_ray_runs_here(
    monkeypatch: pytest.MonkeyPatch, dashboard: Dashboard
) -> None:
    monkeypatch.setattr(local_cluster, "_launch", lambda cluster, command, environment: cluster)
    dashboard.answer["/api/version"] = (200, json.dumps({"ray_version": "2.60.0", "session_name": "session_7"}))
    local_cluster._start_prometheus(
        local_cluster.LocalCluster(dashboard.address, "127.0.0.1:2", (), "log", "http://127.0.0.1:9"),
        {"RAY_TMPDIR": "/t"},
    )
    config = yaml.safe_load((local_cluster.state_folder() / "monitoring/prometheus/prometheus.yml").read_text())
    (targets,) = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert targets == "/t/ray/session_7/prom_metrics_service_discovery.json"
