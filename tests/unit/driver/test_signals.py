"""A stop signal saves and stops, whoever sends it, and whether or not anybody still sees the screen."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from lehr.driver.running import Interrupted, Running
from lehr.driver.signals import stop_signals
from lehr.screen import open_screen

# A driver that trains: it has something to save, and looks for a stop request as the workers do.
DRIVER = """\
import sys, time
from pathlib import Path
from types import SimpleNamespace
from lehr.driver.running import Interrupted
from lehr.driver.signals import finish, stop_signals
from lehr.screen import open_screen, quiet

reasons = []
with quiet(Path("log.txt")) as file:
    screen = open_screen(file)
    run = SimpleNamespace(request_stop=reasons.append)
    running = SimpleNamespace(training=True, run=run, screen=screen, command="again", interrupted="", out_of_time="")
    with stop_signals(running):
        screen.say("ready")
        deadline = time.monotonic() + float(sys.argv[1])
        while not reasons and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)  # the shell, or the terminal, sends it again
    for _ in range(3):
        screen.say("saving")
    Path("saved.txt").write_text(" ".join(reasons))
    screen.close()
finish(130 if reasons else 0)
"""


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """The terminal's hangup has its default meaning, for this process and those it starts, however the tests run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def saved() -> str:
    deadline = time.monotonic() + 20
    while not Path("saved.txt").exists() or not (text := Path("saved.txt").read_text()):
        assert time.monotonic() < deadline, Path("log.txt").read_text()
        time.sleep(0.02)
    return text


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stop_signal_is_a_request_to_save_and_stop(name: str) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, "20"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    for _ in range(1 if name == "SIGINT" else 3):
        driver.send_signal(getattr(signal, name))
    output, _ = driver.communicate(timeout=20)
    assert driver.returncode == 130
    assert saved() == name
    assert output.splitlines() == ["Stopping: saving a checkpoint first. Ctrl-C again ends at once.", *["saving"] * 3]


def test_a_terminal_that_closes_stops_the_run_which_saves_although_nobody_sees_it() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", DRIVER, "20"])
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1000)
    os.close(terminal)
    assert saved() == "SIGHUP"
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130


def test_under_nohup_a_terminal_that_closes_changes_nothing() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    driver = subprocess.Popen([sys.executable, "-c", DRIVER, "1"], stdout=subprocess.PIPE, text=True, preexec_fn=ignore)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(signal.SIGHUP)
    driver.communicate(timeout=20)
    assert driver.returncode == 0


def test_a_reader_that_has_seen_enough_does_not_end_the_run() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, "20"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    driver.stdout.close()  # as `| head -1` does
    driver.send_signal(signal.SIGTERM)
    assert saved() == "SIGTERM"
    assert driver.wait(timeout=20) == 130


def take_for_an_error_of_the_job() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    except Exception as error:  # as building a model does
        raise ValueError("the model is wrong") from error


def test_a_stop_that_the_code_suppressed_which_was_called_is_not_lost(tmp_path: Path) -> None:
    none = cast(Any, None)
    running = Running(none, none, open_screen(sys.stdout), tmp_path / "log.txt", False, 0.0, none, "again")
    with pytest.raises(Interrupted, match="Stopped before the first step"), stop_signals(running):
        take_for_an_error_of_the_job()
    with stop_signals(running), suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    with pytest.raises(Interrupted, match="Stopped before the first step"):
        running.check_lease()
