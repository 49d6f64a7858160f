"""Only processes of drivers that are known to be dead are ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from lehr.processes import process, this_process
from lehr.ray_cluster.orphans import MARK, end_orphans, marked_children

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def sleeping(mark: str | None) -> subprocess.Popen[bytes]:
    others = {key: value for key, value in os.environ.items() if key != MARK}
    return subprocess.Popen(SLEEP, env=others if mark is None else {**others, MARK: mark})


def test_the_processes_of_a_dead_driver_are_ended_and_no_others() -> None:
    with marked_children():
        ours = subprocess.Popen(SLEEP)
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead, this = process(ended.pid), this_process()
    ended.communicate(b"\n")
    assert dead.started is not None
    orphans = [
        sleeping(str(dead)),
        sleeping(str(replace(this, started=1))),  # the id belongs to another process now
    ]
    living = [
        ours,
        sleeping(None),
        sleeping(str(replace(dead, machine="0123456789abcdef"))),  # of another container
        sleeping(f"{dead.pid}:1764492765.12"),  # of an earlier version, which knew the wall clock only
    ]
    try:
        assert set(end_orphans()) >= {each.pid for each in orphans}
        assert not any(psutil.pid_exists(each.pid) for each in orphans)
        assert [each.poll() for each in living] == [None] * len(living)
    finally:
        for each in (*orphans, *living):
            each.kill()
            each.wait()


@pytest.mark.parametrize("step", [1, -1, 3600, -3600, 86400, -86400])
def test_a_clock_that_is_set_meanwhile_ends_nothing(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with marked_children():
        ours = subprocess.Popen(SLEEP)
    # What psutil says of a process moves with the clock, since it adds the ticks to the moment of the boot.
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + step)
    try:
        assert ours.pid not in end_orphans()
        assert ours.poll() is None
    finally:
        ours.kill()
        ours.wait()


def test_what_a_notebook_starts_after_a_run_is_not_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "theirs")
    monkeypatch.delenv("SPT_NOENV", raising=False)
    with marked_children():
        assert os.environ[MARK] == str(this_process())
        assert os.environ["SPT_NOENV"] == "1"
    assert os.environ[MARK] == "theirs"
    assert "SPT_NOENV" not in os.environ
