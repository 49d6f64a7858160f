"""Only processes of dead drivers are ended."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from lehr.ray_cluster.orphans import MARK, end_orphans, mark_children

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_the_processes_of_a_dead_driver_are_ended_and_those_of_a_living_one_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(MARK, "")
    mark_children()
    ours = subprocess.Popen(SLEEP)
    unmarked = subprocess.Popen(SLEEP, env={key: value for key, value in os.environ.items() if key != MARK})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead_name = f"{dead.pid}:{psutil.Process(dead.pid).create_time():.2f}"
    dead.wait()
    orphan = subprocess.Popen(SLEEP, env={**os.environ, MARK: dead_name})
    reused = subprocess.Popen(
        SLEEP, env={**os.environ, MARK: f"{os.getpid()}:1.00"}
    )  # the id belongs to another process now
    try:
        ended = end_orphans()
        assert {orphan.pid, reused.pid} <= set(ended)
        assert ours.pid not in ended
        assert (ours.poll(), unmarked.poll()) == (None, None)
        assert not psutil.pid_exists(orphan.pid)
    finally:
        for process in (ours, unmarked, orphan, reused):
            process.kill()
            process.wait()
