"""A process is known by its boot, its namespaces and its start ticks. What is not known of it is never judged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lehr.processes import Process, Processes, is_here, is_running, process, this_process

BOOT, OTHER_BOOT = "0b0e5a7c-1111-4222-8333-444444444444", "ffffffff-1111-4222-8333-444444444444"
INITIAL_TIME = "time:[4026531834]"


def proc(
    root: Path,
    *,
    boot: str = BOOT,
    pids: str = "pid:[4026531836]",
    time: str = INITIAL_TIME,
    started: dict[int, int] | None = None,
    state: str = "S",
    name: str = "python",
    own: int | None = None,
) -> Path:
    """A tree like /proc, with a process for each id in `started` and for this process, which has id `own` in it."""
    own = own or os.getpid()
    (root / "sys/kernel/random").mkdir(parents=True)
    (root / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
    for pid, ticks in {own: 500, **(started or {})}.items():
        (root / f"{pid}/ns").mkdir(parents=True)
        # Field 22 is the start time; the name, in parentheses, may hold anything.
        (root / f"{pid}/stat").write_text(f"{pid} ({name}) {state} 1 " + "0 " * 17 + f"{ticks} 0 0\n")
    (root / "self").symlink_to(str(own))
    (root / f"{own}/ns/pid").symlink_to(pids)
    (root / f"{own}/ns/time").symlink_to(time)
    return root


def nobody(pid: int, signal: int) -> None:
    raise ProcessLookupError


def somebody_elses(pid: int, signal: int) -> None:
    raise PermissionError


def ours(pid: int, signal: int) -> None:
    pass


def test_a_process_is_written_and_read_as_a_short_text_that_fits_a_file_name() -> None:
    for one in (this_process(), Process.at("a machine/with: [all] kinds", 7, None)):
        text = str(one)
        assert Process.parse(text) == one
        assert len(text) < 50
        assert all(letter.isalnum() or letter == "-" for letter in text)
    for text in (
        "",
        "7",
        "4711:1764492765.12",
        f"{this_process()} ",
        "-1-2-0123456789abcdef",
        "../1-2-0123456789abcdef",
    ):
        assert Process.parse(text) is None


def test_this_process_is_running_and_is_here() -> None:
    this = this_process()
    assert this.pid == os.getpid()
    assert this == process(os.getpid())
    assert is_running(this)
    assert is_here(this)


@pytest.mark.parametrize(
    ("signal", "there", "running", "here"),
    [
        (ours, {"started": {7: 100}}, True, True),
        (somebody_elses, {"started": {7: 100}}, True, True),  # another user's
        (nobody, {}, False, False),
        (ours, {"started": {7: 100}, "state": "Z"}, False, False),
        (ours, {"started": {7: 101}}, False, False),  # the id was used again
        (ours, {}, True, False),  # /proc hides it (hidepid)
        (ours, {"started": {7: 100}, "name": "x) Z 1 2 (y"}, True, True),
        (nobody, {"boot": OTHER_BOOT}, True, False),
        (nobody, {"pids": "pid:[4026532999]"}, True, False),  # another container
        (nobody, {"time": "time:[4026532999]"}, True, False),  # the same ids, but other ticks
        (ours, {"started": {7: 100}, "pids": "pid:[4026532999]"}, True, False),
        (ours, {"started": {7: 999}, "own": 2**22 + 5}, True, False),  # a /proc of another namespace
    ],
    ids=["ours", "anothers", "gone", "zombie", "reused", "hidden", "odd-name", "other-boot", "other-container",
         "other-time", "same-id-in-a-container", "foreign-proc"],
)  # fmt: skip
def test_a_process_is_judged_only_where_it_is_known(
    tmp_path: Path, signal: Callable[[int, int], None], there: dict[str, Any], running: bool, here: bool
) -> None:
    noted = Processes(proc(tmp_path / "then", started={7: 100})).one(7)
    assert noted.started == 100
    now = Processes(proc(tmp_path / "now", **there), signal)
    assert (now.is_running(noted), now.is_here(noted)) == (running, here)


def test_without_proc_nothing_but_the_id_is_known(tmp_path: Path) -> None:
    unknown = Processes(tmp_path, ours).one(2**22 + 5)
    assert unknown.started is None
    assert Processes(tmp_path, ours).is_running(unknown)
    assert not Processes(tmp_path, nobody).is_running(unknown)
    assert not Processes(tmp_path, ours).is_here(unknown)


def test_a_machine_is_one_boot_with_one_numbering_of_processes(tmp_path: Path) -> None:
    there: list[dict[str, Any]] = [{}, {}, {"boot": OTHER_BOOT}, {"pids": "pid:[1]"}, {"time": "time:[1]"}]
    names = [Processes(proc(tmp_path / str(number), **each)).machine() for number, each in enumerate(there)]
    assert names[0] == names[1] == f"{BOOT}/pid:[4026531836]"
    assert len(set(names)) == 4


SEEN_FROM = """\
import sys
from lehr.processes import Process, is_here, is_running
one = Process.parse(sys.argv[1])
print(is_running(one), is_here(one))
"""


@pytest.mark.parametrize("around", [["--pid", "--fork", "--mount-proc"], ["--pid", "--fork"], ["--time", "--fork"]])
@pytest.mark.parametrize("alive", [True, False])
def test_a_real_namespace_says_nothing_about_processes_outside(around: list[str], alive: bool) -> None:
    outside = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    noted = process(outside.pid)
    if not alive:
        outside.communicate(b"\n")
    asked = subprocess.run(
        ["unshare", *around, sys.executable, "-c", SEEN_FROM, str(noted)], capture_output=True, text=True, check=False
    )
    if alive:
        outside.communicate(b"\n")
    if asked.returncode and "unshare" in asked.stderr:
        pytest.skip(f"no namespaces for this user: {asked.stderr}")
    assert asked.stdout.split() == ["True", "False"], asked.stderr
    assert not is_running(noted)
