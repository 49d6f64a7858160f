"""The entrypoint of a RayJob waits for the lease of a driver that died, and exits with 0 when it is asked to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lehr.cli import on_cluster
from lehr.driver import Interrupted
from lehr.errors import LehrError, RunHeld
from lehr.runs import Folder, RunFolder
from lehr.submission import held_runs

JOB = "name: digits\nstorage: {storage}\ntrain: {{epochs: 1}}\n"


@pytest.fixture
def job(tmp_path: Path) -> str:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.format(storage=tmp_path / "runs"))
    RunFolder.create(Folder.at(tmp_path / "runs").child("digits"), {"kind": "train"})
    return str(file)


def stops_with(reason: str, tmp_path: Path) -> object:
    def run_job(*_: object, **__: object) -> None:
        RunFolder.open(Folder.at(tmp_path / "runs/digits")).request_stop(reason)
        raise Interrupted("Stopped at epoch 1 of 2; everything is saved.")

    return run_job


def test_a_run_that_a_person_stopped_is_not_retried(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lehr.kinds.run_job", stops_with("lehr stop", tmp_path))
    on_cluster.on_cluster(job)  # ends without an error: exit code 0
    assert "everything is saved" in capsys.readouterr().out


def test_a_run_that_lost_its_machine_is_retried(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lehr.kinds.run_job", stops_with("SIGTERM", tmp_path))
    with pytest.raises(Interrupted):
        on_cluster.on_cluster(job)


def test_a_lease_that_does_not_expire_is_an_error(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_job(*_: object, **__: object) -> None:
        raise RunHeld("digits is held by somebody")

    monkeypatch.setattr("lehr.kinds.run_job", run_job)
    monkeypatch.setattr(held_runs, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(held_runs, "POLL_SECONDS", 0.1)
    with pytest.raises(RunHeld, match="held by somebody"):
        on_cluster.on_cluster(job)


def test_other_errors_are_raised_as_they_are(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_job(*_: object, **__: object) -> None:
        raise LehrError("the loss is not a number")

    monkeypatch.setattr("lehr.kinds.run_job", run_job)
    with pytest.raises(LehrError, match="not a number"):
        on_cluster.on_cluster(job)


@pytest.mark.slow
@pytest.mark.ray
def test_the_lease_of_a_dead_driver_elsewhere_is_waited_for(tmp_path: Path) -> None:
    """The driver that died was in another container, so only its missing heartbeat shows that it is gone."""
    (tmp_path / "job.yaml").write_text(JOB.format(storage=tmp_path / "runs") + "data: {limit: 200}\n")
    folder = tmp_path / "runs/digits"
    folder.mkdir(parents=True)
    beat = datetime.now(UTC) - timedelta(seconds=52)  # of the 60 after which a lease is stale
    holder = {
        "owner": "other",
        "user": "lehr",
        "host": "old-head",
        "machine": "another",
        "pid": 1,
        "process_started": None,
        "attempt": 0,
        "taken": beat.isoformat(),
        "heartbeat": beat.isoformat(),
    }
    (folder / "lease.json").write_text(json.dumps(holder))
    started = time.monotonic()
    command = [sys.executable, "-m", "lehr", "on-cluster", "job.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for its lease to expire" in done.stdout
    assert time.monotonic() - started > 8
    outcome = RunFolder.open(Folder.at(folder)).outcome()
    assert outcome is not None
    assert outcome.status == "finished"
