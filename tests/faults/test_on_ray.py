"""Workers and daemons of a real Ray are killed or stopped while a job runs. Each test starts its own Ray."""

from __future__ import annotations

import ipaddress
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lehr import Run
from tests.integration.test_on_ray import left_behind, start, wait_for_epoch
from tests.support import records, weights

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

LONG = "train.epochs=200"  # long enough to be struck on a fast machine, too


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, before = tmp_path_factory.mktemp("whole"), Path.cwd()
    os.chdir(folder)
    try:
        _, stderr = (process := start("whole", LONG)).communicate(timeout=280)
    finally:
        os.chdir(before)
    assert process.returncode == 0, stderr
    return Run(folder / "runs/whole")


def assert_undisturbed(run: Run, whole: Run) -> None:
    for one, other in zip(records(whole.folder), records(run.folder), strict=True):
        assert one.equals(other)
    for name, value in weights(whole.folder).items():
        assert value.equal(weights(run.folder)[name]), name


def of_session(session: int, wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """The processes of a session whose command line passes the filter."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and wanted(" ".join(process.cmdline())):
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return sorted(found, key=lambda process: process.pid)


def is_worker(command: str) -> bool:
    return "RayTrainWorker" in command


@pytest.mark.parametrize(
    ("what", "told"),
    [(signal.SIGKILL, "exited without an error message"), (signal.SIGSTOP, "did not answer its health check in time")],
)
def test_a_lost_worker_costs_one_restart_and_nothing_else(
    what: signal.Signals, told: str, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "10")  # by default a minute
    before = set(Path(tempfile.gettempdir()).glob("lehr-ray-*"))
    process = start("lost", LONG)
    wait_for_epoch(5, "lost", process)
    workers = of_session(process.pid, is_worker)
    assert len(workers) == 2
    os.kill(workers[-1].pid, what)
    stdout, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    run = Run("runs/lost")
    assert_undisturbed(run, whole)
    kinds = [event["kind"] for event in run.folder.events()]
    assert kinds[:3] == ["started", "lost", "resumed"], kinds
    lost, resumed = run.folder.events()[1:3]
    assert told in lost["message"]
    assert lost["message"][1:] in stdout
    assert lost["step"] - resumed["step"] <= 7, "more than one checkpoint interval was repeated"
    assert left_behind(process.pid) == []
    assert set(Path(tempfile.gettempdir()).glob("lehr-ray-*")) == before


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_killed_head_ends_the_job_with_a_message_and_the_next_run_resumes(name: str, whole: Run) -> None:
    process = start("headless", LONG)
    wait_for_epoch(5, "headless", process)
    (daemon,) = of_session(process.pid, lambda command: f"/{name} " in command or command.endswith(f"/{name}"))
    daemon.kill()
    _, stderr = process.communicate(timeout=40)  # Ray itself would end it after 60 s, without a word
    assert process.returncode == 1
    assert stderr.startswith(f"Ray's process {name} ended unexpectedly"), stderr
    assert "goes on from there" in stderr
    assert "Traceback" not in stderr
    again = start("headless", LONG)
    _, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    assert_undisturbed(Run("runs/headless"), whole)
    assert left_behind(process.pid) == []
    assert left_behind(again.pid) == []


def test_a_killed_controller_costs_one_restart_and_nothing_else(whole: Run) -> None:
    process = start("uncontrolled", LONG)
    wait_for_epoch(5, "uncontrolled", process)
    (controller,) = of_session(process.pid, lambda command: "TrainController" in command)
    controller.kill()
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert "the process that watches the workers was lost (it was killed, or it crashed)." in stdout
    assert_undisturbed(Run("runs/uncontrolled"), whole)
    assert left_behind(process.pid) == []


def test_ray_listens_only_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for the store where torch's workers meet: it listens on all interfaces, and torch offers no option."""
    monkeypatch.delenv("RAY_AUTH_MODE")  # as a user has it
    process = start("listening", LONG)
    try:
        wait_for_epoch(3, "listening", process)
        open_to_all = []
        for one in of_session(process.pid, lambda command: True):
            for connection in one.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(connection.laddr.ip)
                    if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
                        open_to_all.append(" ".join(one.cmdline()))
        assert len(open_to_all) <= 1, open_to_all
        assert all(map(is_worker, open_to_all)), open_to_all
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
