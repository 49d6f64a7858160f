"""Trials on Ray: warm processes, failures that affect no other trial, kills that lose nothing. Starts a real Ray."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.support import tiny

from lehr.driver import Running
from lehr.job import to_dict
from lehr.runs import Folder, Lease, Progress, RunFolder
from lehr.screen import open_screen
from lehr.search.record import read_records
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials import Each, Trial, TrialCallbacks, run_trials, train_trial

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]

JOB: dict[str, Any] = {
    "kind": "search",
    "name": "killed",
    "base": {
        "data": {"source": "digits", "limit": 600},
        "model": {"name": "small_cnn", "width": 8},
        "train": {"epochs": 9, "batch_size": 32},
        "workers": {"cpus": 1},
    },
    "space": {"optimizer.lr": {"log_uniform": [0.001, 1]}, "optimizer.momentum": {"uniform": [0, 0.95]}},
    "budget": {"trials": 10},
}


@pytest.fixture(autouse=True)
def _trials_find_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainables below are imported by name in the processes of trials."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))


def running(tmp_path: Path) -> Running:
    run = RunFolder.create(Folder.at(tmp_path / "parent"), to_dict(tiny()))
    screen, lease = open_screen(io.StringIO()), Lease.acquire(run.folder)
    lease.release()
    return Running(tiny(), run, screen, tmp_path / "log.txt", False, 0.0, lease, "again")


def trial(number: int, work: Any = train_trial, **overrides: Any) -> Trial:
    small = {"train__epochs": 2, "data__limit": 100, "workers": {"cpus": 1, "retries": 1}}
    return Trial(f"trials/{number:04}", tiny(**{**small, **overrides}), work)


def remember(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Trains, and records which process it ran in."""
    run.folder.write_json("process.json", {"process": os.getpid()})
    train_trial(plan, run, group, hooks)


def be_killed(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Ends as the kernel ends a process that uses too much memory."""
    with (run.folder.local_path / "tries").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def ask_for_too_much(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    torch.empty(2**50, dtype=torch.uint8)


class EndedAfterOne(Each):
    """Ends the first trial after its first epoch."""

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        return "seen enough" if trial.folder.endswith("0000") and row["epoch"] == 1 else None


def test_trials_share_warm_processes_and_a_failure_affects_no_other_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only/in_this_process.py").write_text(
        "def train(plan, run, group, callbacks):\n    raise AssertionError"
    )
    monkeypatch.syspath_prepend(tmp_path / "only")
    unknown = importlib.import_module("in_this_process").train
    study = EndedAfterOne(
        [
            trial(10, unknown),
            trial(0, remember), trial(1, ask_for_too_much), trial(2, be_killed), trial(3, remember, optimizer__lr=1e20),
            *(trial(number, remember, seed=number) for number in range(4, 10)),
        ]
    )  # fmt: skip
    run_trials(running(tmp_path), study)
    told = {int(name[-4:]): (outcome.status, outcome.message) for name, outcome in study.outcomes.items()}
    assert told[0] == ("finished", "seen enough")
    assert told[1][0] == "failed"
    assert "memory" in told[1][1]
    assert told[2][0] == "failed"
    assert told[2][1].startswith("its process was lost 2 times")
    assert told[3][0] == "failed"
    assert "learning rate 1e+20" in told[3][1]
    assert {told[number] for number in range(4, 10)} == {("finished", "all epochs done")}
    assert told[10][0] == "failed"
    assert "No module named 'in_this_process'" in told[10][1]  # and nobody waits for it
    parent = tmp_path / "parent"
    assert (parent / "trials/0002/tries").read_text() == "xx"
    processes = [json.loads(path.read_text())["process"] for path in parent.rglob("process.json")]
    assert len(processes) == 8
    # One process for each core, and one more for each that was lost: twice by trial 2, and by trial 10, whose function
    # it could not load, wherever Tune had placed that.
    assert len(set(processes)) <= len(os.sched_getaffinity(0)) + 3


@pytest.mark.slow
def test_a_killed_search_resumes_with_the_same_trials_and_repeats_none(tmp_path: Path) -> None:
    Path("job.yaml").write_text(yaml.safe_dump(JOB))
    command = [sys.executable, "-m", "lehr", "run", "job.yaml"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    folder, deadline = Path("runs/killed"), time.monotonic() + 200
    while finished(folder) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = read_records(RunFolder.open(str(folder)))
    attempts = {path: path.read_bytes() for path in folder.rglob("attempts/????.json") if ended(path.parents[1])}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=250)
    after = read_records(RunFolder.open(str(folder)))
    assert len(before) < len(after) == 10
    assert {number: after[number].values for number in before} == {n: record.values for n, record in before.items()}
    for number, record in before.items():  # no rung is lost and no decision is reversed
        assert after[number].scores[: len(record.scores)] == record.scores
        assert not record.ended or after[number].ended == record.ended
    assert {path: path.read_bytes() for path in attempts} == attempts
    for path in attempts:
        assert sorted(path.parent.iterdir()) == sorted(other for other in attempts if other.parent == path.parent)


def ended(trial: Path) -> bool:
    return RunFolder.open(trial).outcome() is not None


def finished(folder: Path) -> int:
    overview = Progress.read(Folder.at(folder)).overview
    return overview.children["finished"] if overview else 0


class GroupsLeft(Each):
    """Ends every trial after its first epoch, and counts the placement groups that exist when a trial has ended."""

    def __init__(self, trials: list[Trial]) -> None:
        super().__init__(trials)
        self.left: list[int] = []

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        return "seen enough"

    def tell(self, trial: Trial, outcome: Any) -> None:
        import ray

        super().tell(trial, outcome)
        groups = ray.util.placement_group_table().values()
        self.left.append(sum(group["state"] != "REMOVED" for group in groups))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_trials_with_two_workers_that_end_early_leave_no_placement_group(tmp_path: Path) -> None:
    count = int(os.environ.get("LEHR_TEST_TRIALS", "20"))
    study = GroupsLeft([trial(number, seed=number, workers={"count": 2, "cpus": 1}) for number in range(count)])
    run_trials(running(tmp_path), study)
    assert {(outcome.status, outcome.message) for outcome in study.outcomes.values()} == {("finished", "seen enough")}
    assert len(study.left) == count
    slots = max(1, len(os.sched_getaffinity(0)) // 2)
    assert max(study.left[:-1], default=0) <= 2 * slots  # each slot's own, and that of the trial in it
    assert study.left[-1] <= slots  # at the end, none of a trial
