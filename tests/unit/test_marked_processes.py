"""What a process left behind is ended, and nothing else: only what carries its name, once it is known to be dead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from lehr.processes import MARK, end_marked, end_orphans, marked_children, process, this_process

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


ASKED = """\
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_at_the_end_a_process_waits_for_its_own_children_and_then_ends_what_is_left() -> None:
    def start(seconds: float) -> subprocess.Popen[str]:
        child = subprocess.Popen([sys.executable, "-c", ASKED, str(seconds)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout as output:
            assert output.readline() == "ready\n"
        return child

    unmarked = start(60)
    with marked_children():
        quick, slow = start(0.2), start(60)
    assert end_marked(patience=1.5) == [slow.pid]
    assert not any(psutil.pid_exists(each.pid) for each in (quick, slow))
    assert unmarked.poll() is None
    unmarked.kill()
    unmarked.wait()
