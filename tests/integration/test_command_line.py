"""What a user of the command line sees: runs that finish, resume or are refused, and why. All without Ray."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lehr.runs import name_of

JOB = """\
kind: train
data: {source: digits, limit: 330}
model: {name: small_cnn, width: 8}
optimizer: {lr: 0.05, momentum: 0.9}
train: {epochs: 2, batch_size: 64}
"""


def lehr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lehr", *words], capture_output=True, text=True, timeout=120, check=False
    )


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return lehr("run", "job.yaml", "--debug", *words)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_a_run_from_start_to_end(job: Path) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
    assert "Best validation accuracy" in done.stdout
    assert "runs/job/model" in done.stdout

    again = run()
    assert again.returncode == 0
    assert "job is finished: runs/job" in again.stdout
    assert "--fresh" in again.stdout
    assert "epoch" not in again.stdout

    listed = json.loads(lehr("runs", "--json").stdout)
    assert (listed["name"], listed["status"], listed["epochs_done"]) == ("job", "finished", 2)
    shown = lehr("show", "job")
    assert "finished" in shown.stdout
    assert "validation accuracy" in shown.stdout

    fresh = run("--fresh")
    assert fresh.returncode == 0
    assert "epoch 2/2" in fresh.stdout

    missing = lehr("show", "jop")
    assert missing.returncode == 1
    assert missing.stderr == 'no run "jop" in ./runs; did you mean job?\n'
    assert lehr("rm", "job", "--yes").returncode == 0
    assert not Path("runs/job").exists()


def test_overrides_make_a_new_run_and_more_epochs_continue_it_where_the_rate_allows_it(job: Path) -> None:
    assert run("name=mine").returncode == 0
    refused = run("name=mine", "optimizer.lr=0.1")
    assert refused.returncode == 1
    assert "mine is a run of another job (optimizer.lr: 0.05 -> 0.1)" in refused.stderr
    assert refused.stderr.count("\n") == 1

    longer = run("name=mine", "train.epochs=3")  # a constant rate: earlier steps keep theirs
    assert longer.returncode == 0, longer.stderr
    assert "epoch 3/3" in longer.stdout
    assert "epoch 1/3" not in longer.stdout
    steps = [row["step"] for row in _epochs("mine")]
    assert steps == sorted(set(steps))
    assert len(steps) == 3

    assert run("name=cosine", "schedule=cosine").returncode == 0
    refused = run("name=cosine", "schedule=cosine", "train.epochs=3")  # would change the rates of earlier steps
    assert refused.returncode == 1
    assert "train.epochs: 2 -> 3" in refused.stderr

    assert run("optimizer.lr=0.1", "train.epochs=1").returncode == 0
    assert Path("runs/job-lr-0.1-epochs-1/model/weights-0001.safetensors").exists()


def test_a_changed_file_without_a_name_is_a_new_run(job: Path) -> None:
    assert run("train.epochs=1").returncode == 0
    job.write_text(JOB.replace("0.05", "0.06"))
    assert run("train.epochs=1").returncode == 0
    assert Path("runs/job-epochs-1-2/model").exists()


def test_a_second_driver_is_refused_and_a_stopped_run_resumes(job: Path) -> None:
    words = [sys.executable, "-m", "lehr", "run", "job.yaml", "--debug", "name=long", "train.epochs=2000"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(lambda: _progress("long").get("epochs_done", 0) >= 2, first)
        second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert re.search(rf"is being written by .* \(process {first.pid}\)", second.stderr), second.stderr
        assert lehr("rm", "long", "--yes").returncode == 1  # a run that is being written is not deleted

        first.send_signal(signal.SIGINT)
        _, stderr = first.communicate(timeout=30)
    finally:
        first.kill()
    assert first.returncode == 130, stderr
    assert "Resume with: lehr run job.yaml name=long train.epochs=2000 --debug" in stderr
    stopped = _progress("long")
    assert stopped["status"] == "stopped"
    assert Path(f"runs/long/checkpoints/{name_of(stopped['step'], 1)}/manifest.json").exists()

    third = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    _wait_for(lambda: _progress("long")["step"] > stopped["step"], third)
    third.kill()
    third.communicate()
    assert json.loads(lehr("runs", "--json").stdout)["status"] == "interrupted"
    assert [e["kind"] for e in _events("long")] == ["started", "stopped", "resumed"]


def test_the_error_of_a_diverging_run_names_the_step_and_the_rate(job: Path) -> None:
    failed = run("optimizer.lr=1e30", "name=wild")
    assert failed.returncode == 1
    assert re.search(
        r"the (validation )?loss became (nan|inf|[\d.e+]+) at step \d+ \(epoch 1\) with learning rate 1e\+30",
        failed.stderr,
    )
    assert "Traceback" not in failed.stderr


def test_an_error_in_the_job_is_one_sentence_with_exit_code_2(job: Path) -> None:
    wrong = run("model=smal_cnn")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "did you mean small_cnn" in wrong.stderr
    assert not Path("runs").exists()


def _epochs(name: str) -> list[dict[str, Any]]:
    from lehr import Run

    return Run(f"runs/{name}").folder.epochs().to_pylist()


def _progress(name: str) -> dict[str, Any]:
    path = Path(f"runs/{name}/progress.json")
    return json.loads(path.read_text()) if path.exists() else {}


def _events(name: str) -> list[dict[str, Any]]:
    from lehr import Run

    return Run(f"runs/{name}").folder.events()


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"still waiting after {seconds:.0f} s"
        time.sleep(0.05)


def test_pythons_own_platform_module_stays_importable_from_the_repository_root() -> None:
    root = Path(__file__).parents[2]
    where = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.__file__, platform.system())"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ).stdout
    assert str(root) not in where
    assert "Linux" in where or "Darwin" in where
