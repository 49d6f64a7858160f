"""The main job as users run it: the command, Ray Train workers, a terminal's signals. Each test starts a real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.support import records, weights

from lehr import Run
from lehr.runs import name_of

pytestmark = pytest.mark.ray

JOB = """\
kind: train
data: {source: digits, augment: [shift]}
model: {name: small_cnn, width: 8}
optimizer: {lr: 0.05, momentum: 0.9}
schedule: {name: cosine, warmup: 1ep}
train: {epochs: 30, batch_size: 64, checkpoint: {every: 7step}}
workers: {count: 2}
"""


def start(name: str, *words: str) -> subprocess.Popen:
    Path("job.yaml").write_text(JOB)
    # A session of its own, as a terminal gives each job: signals go to the whole group, and no process may outlive it.
    return subprocess.Popen(
        [sys.executable, "-m", "lehr", "run", "job.yaml", f"name={name}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_epoch(epoch: int, name: str, process: subprocess.Popen, seconds: float = 120) -> None:
    progress = Path(f"runs/{name}/progress.json")
    deadline = time.monotonic() + seconds
    while not (progress.exists() and json.loads(progress.read_text())["epochs_done"] >= epoch):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)


def left_behind(session: int) -> list[str]:
    """The command lines of the processes of this session that are still there after a moment."""
    for _ in range(100):
        there = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    there.append(" ".join(process.cmdline())[:120])
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        if not there:
            break
        time.sleep(0.1)
    return there


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    before = Path.cwd()
    os.chdir(folder)
    try:
        process = start("whole")
        stdout, stderr = process.communicate(timeout=240)
    finally:
        os.chdir(before)
    assert process.returncode == 0, stderr
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[0].startswith("train whole   run folder: runs/whole   log: runs/whole/log.txt")
    assert any(line.startswith("epoch 30/30") for line in lines)
    chatter = [line for line in lines if "ray" in line.lower().replace("starting ray", "") or "(pid=" in line]
    assert not chatter
    assert "TrainController" in (folder / "runs/whole/log.txt").read_text()
    assert left_behind(process.pid) == []
    return Run(folder / "runs/whole")


def test_two_workers_train_and_leave_a_model(undisturbed: Run) -> None:
    assert undisturbed.status == "finished"
    training = undisturbed.folder.progress().training
    assert training is not None
    assert training.workers == 2
    assert undisturbed.metrics()["validation_accuracy"].max() > 0.9
    epochs = undisturbed.folder.epochs().to_pylist()
    assert [row["epoch"] for row in epochs] == list(range(1, 31))


def test_the_driver_killed_in_mid_run_and_run_again_at_once_equals_never_killed(undisturbed: Run) -> None:
    process = start("killed")
    wait_for_epoch(9, "killed", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = start("killed")
    _, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    resumed = Run("runs/killed")
    kinds = [event["kind"] for event in resumed.folder.events()]
    assert kinds[0] == "started"
    assert "resumed" in kinds
    for one, other in zip(records(undisturbed.folder), records(resumed.folder), strict=True):
        assert one.equals(other)
    for name, value in weights(undisturbed.folder).items():
        assert value.equal(weights(resumed.folder)[name]), name
    assert left_behind(process.pid) == []  # Ray's daemons of the killed driver: the second one ended them
    assert left_behind(again.pid) == []


def test_ctrl_c_saves_stops_and_says_how_to_go_on_and_a_second_one_ends_at_once() -> None:
    process = start("stopped")
    wait_for_epoch(3, "stopped", process)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process in the foreground
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Resume with: lehr run job.yaml name=stopped" in stderr
    assert "Stopping: saving a checkpoint first" in stdout
    progress = Run("runs/stopped").folder.progress()
    assert progress.status == "stopped"
    assert progress.training is not None
    assert (Path("runs/stopped/checkpoints") / name_of(progress.training.step, 1) / "manifest.json").exists()
    assert left_behind(process.pid) == []

    impatient = start("stopped")
    wait_for_epoch(4, "stopped", impatient)
    os.kill(impatient.pid, signal.SIGINT)
    os.kill(impatient.pid, signal.SIGINT)
    assert impatient.wait(timeout=20) == 130
    assert left_behind(impatient.pid) == []
