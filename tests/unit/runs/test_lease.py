"""One writer per run folder."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from lehr.errors import RunHeld, StorageError
from lehr.processes import this_machine
from lehr.runs import Folder, Holder, Lease, begin_attempt, lease


def change(folder: Folder, **fields: Any) -> None:
    holder = Holder.read(folder)
    assert holder is not None
    replace(holder, **fields).write(folder)


def seconds_ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.2)


WRONG = (
    b'{"owner": "o", "user": "u", "host": "h", "machine": "m", "pid": "7", "process_started": null, "attempt": 1,'
    b' "taken": "2031-05-01T12:00:00+00:00", "heartbeat": "2031-05-01T12:00:00+00:00"}'
)
HOLD = """
import sys
from lehr.runs import Folder, Lease
lease = Lease.acquire(Folder.at(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
lease.release()
"""


@pytest.fixture
def held(local: Folder, python: Callable[..., Popen[str]]) -> Popen[str]:
    """A real process that holds the lease until it gets a line of input."""
    process = python(HOLD, local.uri)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.usefixtures("fast")
def test_a_second_writer_is_told_who_holds_it_since_when_and_what_to_do(folder: Folder) -> None:
    with Lease.acquire(folder) as held:
        with pytest.raises(RunHeld) as caught:
            Lease.acquire(folder)
        sentence = str(caught.value)
        for part in (folder.uri, held.holder.user, held.holder.host, f"process {os.getpid()}", "since 20", "60 s"):
            assert part in sentence
        assert re.search(r"last heartbeat \d+ s ago", sentence)
        assert "\n" not in sentence
    assert not folder.exists("lease.json")
    Lease.acquire(folder).release()


def test_a_live_process_keeps_its_lease_and_hands_it_over_when_done(local: Folder, held: Popen[str]) -> None:
    with pytest.raises(RunHeld, match=f"process {held.pid}"):
        Lease.acquire(local)
    held.communicate("done\n", timeout=30)
    assert held.returncode == 0
    Lease.acquire(local).release()


@pytest.mark.parametrize("reaped", [False, True], ids=["a zombie", "gone"])
def test_a_dead_process_on_this_machine_has_lost_its_lease_at_once(
    local: Folder, held: Popen[str], reaped: bool
) -> None:
    held.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        held.wait()
    holder = Holder.read(local)
    assert holder is not None
    assert not holder.is_alive()
    with Lease.acquire(local) as mine:
        assert mine.holder.pid == os.getpid()


def test_a_stopped_process_is_not_dead(local: Folder, held: Popen[str]) -> None:
    held.send_signal(signal.SIGSTOP)
    with pytest.raises(RunHeld):
        Lease.acquire(local)
    held.send_signal(signal.SIGCONT)


def test_a_reused_process_id_is_not_the_holder(local: Folder, held: Popen[str]) -> None:
    holder = Holder.read(local)
    assert holder is not None
    assert holder.process_started is not None
    change(local, process_started=holder.process_started - 1)
    Lease.acquire(local).release()


class OurTime:
    """This process's own clock. While it sleeps, the holder, whose clock is `ahead` of ours, may renew its lease."""

    def __init__(self, folder: Folder, ahead: float, beats: bool) -> None:
        self.folder, self.ahead, self.beats = folder, ahead, beats
        self.now = self.beaten = 0.0
        self.slept = 0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1
        if self.beats and self.now - self.beaten >= lease.BEAT_SECONDS:
            self.beaten = self.now
            change(self.folder, heartbeat=seconds_ago(-self.ahead - self.now))


@pytest.fixture
def theirs(local: Folder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OurTime]:
    """A lease of another machine, where nothing is known of process ids: here this one would be dead."""

    def make(age: float, beats: bool) -> OurTime:
        Lease.acquire(local)
        change(local, owner="theirs", machine="another", pid=2**22 + 1, heartbeat=seconds_ago(age))
        time = OurTime(local, -age, beats)
        monkeypatch.setattr(lease, "_WATCH", lease.Watch(time.clock))
        monkeypatch.setattr(lease, "_sleep", time.sleep)
        return time

    return make


SKEWS = {"1 s": 1.0, "1 h": 3600.0, "1 d": 86400.0}


@pytest.mark.parametrize("skew", [*SKEWS.values(), *(-each for each in SKEWS.values()), 0.0, 59.0])
def test_a_living_lease_of_another_machine_is_kept_however_wrong_a_clock_is(
    local: Folder, theirs: Callable[..., OurTime], skew: float
) -> None:
    time = theirs(skew, beats=True)
    with pytest.raises(RunHeld):
        Lease.acquire(local)
    assert time.now <= 2 * lease.BEAT_SECONDS
    assert (time.slept == 0) == (0 <= skew <= lease.STALE_SECONDS), "a fresh one refuses at once, another is watched"


@pytest.mark.parametrize("skew", [61.0, *(-each for each in SKEWS.values()), 3600.0, 86400.0])
def test_a_dead_lease_of_another_machine_is_taken_after_a_minute_of_watching_however_wrong_a_clock_is(
    local: Folder, theirs: Callable[..., OurTime], skew: float
) -> None:
    time, said = theirs(skew, beats=False), list[str]()
    Lease.acquire(local, say=said.append).release()
    assert lease.STALE_SECONDS <= time.now <= lease.STALE_SECONDS + 5
    (sentence,) = said
    assert "watching for 60 s whether that process lives" in sentence
    assert ("in the future" in sentence) == (skew < 0)


def test_time_in_which_this_process_was_stopped_was_not_watched(
    local: Folder, theirs: Callable[..., OurTime], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = theirs(3600.0, beats=False)

    def stopped(seconds: float) -> None:
        time.sleep(seconds)
        if time.slept == 1:
            time.now += 3600  # then the other one may have been stopped too, and goes on
            time.beats = True

    monkeypatch.setattr(lease, "_sleep", stopped)
    with pytest.raises(RunHeld):
        Lease.acquire(local)


def test_who_asks_again_and_again_has_watched_meanwhile(local: Folder, theirs: Callable[..., OurTime]) -> None:
    time = theirs(0.0, beats=False)
    for _ in range(12):
        with pytest.raises(RunHeld):
            Lease.acquire(local)
        time.now += 5
    change(local, heartbeat=seconds_ago(61))
    time.beats = True
    with pytest.raises(RunHeld):  # the heartbeat moved
        Lease.acquire(local)
    time.beats, time.slept = False, 0
    change(local, heartbeat=seconds_ago(0))
    for _ in range(12):
        with pytest.raises(RunHeld):
            Lease.acquire(local)
        time.now += 5
    Lease.acquire(local).release()
    assert time.slept == 0


def test_a_clock_that_is_set_while_the_holder_lives_costs_it_nothing(
    local: Folder, held: Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.02)
    for step in (*SKEWS.values(), *(-each for each in SKEWS.values())):
        shifted = (datetime.now(UTC) + timedelta(seconds=step)).isoformat()
        monkeypatch.setattr(lease, "now", lambda shifted=shifted: shifted)
        threading.Timer(0.1, change, [local], {"heartbeat": shifted}).start()
        with pytest.raises(RunHeld):
            Lease.acquire(local)
        time.sleep(0.15)


@pytest.mark.parametrize(("age", "shown"), [(0, True), (59, True), (61, False), (-3600, True)])
def test_a_list_of_runs_judges_a_lease_without_waiting(local: Folder, age: float, shown: bool) -> None:
    Lease.acquire(local)
    change(local, owner="theirs", machine="another", pid=2**22 + 1, heartbeat=seconds_ago(age))
    holder = Holder.read(local)
    assert holder is not None
    assert holder.is_alive() == shown


def test_a_process_of_the_same_id_in_another_container_is_another_process(local: Folder) -> None:
    first = Lease.acquire(local)
    boot, _, namespace = first.holder.machine.partition("/")
    assert boot
    assert namespace.startswith(os.readlink("/proc/self/ns/pid"))
    change(local, owner="theirs", machine=f"{boot}/pid:[1]", pid=2**22 + 1)
    with pytest.raises(RunHeld):
        Lease.acquire(local)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"owner": "me"}', WRONG])
def test_a_damaged_lease_blocks_nobody(local: Folder, content: bytes) -> None:
    local.write("lease.json", content)
    assert Holder.read(local) is None
    Lease.acquire(local).release()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.usefixtures("fast")
def test_the_heartbeat_is_renewed_with_the_newest_attempt(folder: Folder) -> None:
    def holder() -> Holder:
        found = Holder.read(folder)
        assert found is not None
        return found

    with Lease.acquire(folder) as mine:
        first = holder()
        assert first.attempt == 0
        begin_attempt(folder, workers=1, checkpoint=None)
        wait_until(lambda: holder().heartbeat > first.heartbeat and holder().attempt == 1)
        assert holder().owner == first.owner
        assert holder().taken == first.taken
        assert not mine.lost.is_set()


@pytest.mark.usefixtures("fast")
def test_a_lease_that_was_taken_over_is_noticed_and_left_alone(folder: Folder) -> None:
    noticed = threading.Event()
    mine = Lease.acquire(folder, on_lost=noticed.set)
    theirs = asdict(mine.holder) | {"owner": "theirs"}

    # A beat in flight may overwrite the first try on an object store; a real taker looks again, as we do here.
    def lost_or_tried_again() -> bool:
        if not mine.lost.is_set():
            folder.write_json("lease.json", theirs)
        return mine.lost.is_set()

    wait_until(lost_or_tried_again)
    assert noticed.wait(10)
    assert folder.read_json("lease.json")["owner"] == "theirs"
    mine.release()
    assert folder.read_json("lease.json")["owner"] == "theirs"


def test_a_lease_deleted_by_hand_frees_the_run_and_its_holder_notices_who_comes_next(local: Folder) -> None:
    first = Lease.acquire(local)
    local.delete("lease.json")
    first.beat()
    assert not local.exists("lease.json")
    with Lease.acquire(local):
        first.beat()
        assert first.lost.is_set()


def test_a_storage_that_fails_for_a_while_does_not_cost_the_lease(
    local: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    write = Folder.write_json
    failed: list[str] = []

    def failing(self: Folder, name: str, value: Any) -> None:
        if len(failed) < 3:
            failed.append(name)
            raise StorageError("away")
        write(self, name, value)

    with Lease.acquire(local) as mine:
        before = mine.holder.heartbeat
        monkeypatch.setattr(Folder, "write_json", failing)
        wait_until(lambda: local.read_json("lease.json")["heartbeat"] > before)
        assert len(failed) == 3
        assert not mine.lost.is_set()


RACE = """
import sys, time
from lehr.errors import RunHeld
from lehr.runs import Folder, Lease
print("ready", flush=True)
for line in sys.stdin:
    where, start = line.split()
    while time.monotonic() < float(start):
        pass
    try:
        lease = Lease.acquire(Folder.at(where))
        print("won", flush=True)
    except RunHeld:
        lease = None
        print("held", flush=True)
    sys.stdin.readline()
    if lease:
        lease.release()
"""


def test_of_racing_processes_exactly_one_wins_a_free_or_stale_lease(
    tmp_path: Path, python: Callable[..., Popen[str]]
) -> None:
    racers = [python(RACE) for _ in range(3)]

    def tell(line: str) -> None:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(line + "\n")
            racer.stdin.flush()

    def hear() -> Counter[str]:
        return Counter(racer.stdout.readline().strip() for racer in racers if racer.stdout is not None)

    assert hear() == {"ready": 3}
    dead = {"machine": this_machine(), "pid": os.getpid(), "process_started": 1}
    stale = {"owner": "dead", "user": "u", "host": "h", **dead, "attempt": 1}
    for round_ in range(60):
        folder = Folder.at(tmp_path / f"{round_}")
        if round_ % 2:
            folder.write_json("lease.json", stale | {"taken": seconds_ago(99), "heartbeat": seconds_ago(99)})
        tell(f"{folder.uri} {time.monotonic() + 0.01}")
        assert hear() == {"won": 1, "held": 2}
        tell("go on")
    for racer in racers:
        racer.communicate(timeout=30)
        assert racer.returncode == 0


def test_a_run_that_is_deleted_under_its_lease_stays_deleted(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.01)
    with Lease.acquire(folder) as mine:
        folder.write("sub/a", b"1")
        folder.delete_all()
        mine.beat()
        assert not mine.lost.is_set()
    assert folder.files() == folder.folders() == []
    assert not folder.is_local or not folder.local_path.exists()


def test_a_lock_on_a_file_deleted_meanwhile_does_not_count(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    local.local_path.mkdir()
    path, flock, cleared = local.local_path / ".lease.lock", lease.fcntl.flock, False

    def clear_the_run_first(file: Any, operation: int) -> None:
        nonlocal cleared
        flock(file, operation)
        if not cleared:
            path.unlink()
            cleared = True

    monkeypatch.setattr(lease.fcntl, "flock", clear_the_run_first)
    with lease._locked(local) as locked:
        assert locked
        assert cleared
        assert lease._try_lock(path) is None, "who comes next finds the same file, and finds it locked"


@pytest.mark.usefixtures("fast")
def test_on_an_object_store_one_of_two_processes_wins(s3: str) -> None:
    for round_ in range(3):
        folder = Folder.at(f"{s3}/{round_}")
        gate = threading.Barrier(2)
        outcomes: list[Any] = []

        def take(folder: Folder = folder, gate: Any = gate, outcomes: list[Any] = outcomes) -> None:
            gate.wait()
            try:
                outcomes.append(Lease.acquire(folder))
            except RunHeld:
                outcomes.append(None)

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [outcome for outcome in outcomes if outcome]
        assert len(winners) == 1
        winners[0].release()


def test_a_disk_without_locks_works_like_an_object_store(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(lease.fcntl, "flock", no_locks)
    with Lease.acquire(local), pytest.raises(RunHeld):
        Lease.acquire(local)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot"):
        Lease.acquire(Folder.at(tmp_path / "file" / "run"))
