"""Two users, two containers and a host; clocks that are wrong or set in between: nothing foreign is touched.

A container is a process namespace of its own with its own /proc, and shares everything else: the temporary folder, the
run folders and the home folder, as containers with volumes do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lehr import Run
from lehr.runs import Holder
from tests.integration.test_on_ray import JOB, left_behind, wait_for_epoch

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
LEHR = [sys.executable, "-m", "lehr"]
LONG = ("train.epochs=4000", "train.early_stopping.patience=4000", "workers={count: 1}")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh home folder, and nothing of Ray's in the environment, as a user has it."""
    if subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("this user may not create process namespaces")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "LEHR_STATE"):
        monkeypatch.delenv(name, raising=False)


def run(name: str, around: list[str] | None = None) -> subprocess.Popen[str]:
    Path("job.yaml").write_text(JOB)
    return subprocess.Popen(
        [*(around or []), *LEHR, "run", "job.yaml", f"name={name}", *LONG],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def lehr(*words: str, around: list[str] | None = None, seconds: float = 200) -> subprocess.CompletedProcess[str]:
    command = [*(around or []), *LEHR, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def epoch(name: str) -> int:
    return int(json.loads(Path(f"runs/{name}/progress.json").read_text())["epochs_done"])


def end(process: subprocess.Popen[str]) -> str:
    """Ends a run and everything in its container; returns what it said on standard error."""
    process.kill()
    return process.communicate(timeout=60)[1]


@pytest.mark.parametrize("first_in_container", [True, False], ids=["container-then-host", "host-then-container"])
def test_a_run_beside_one_in_a_container_leaves_it_alone(first_in_container: bool) -> None:
    inside, outside = (CONTAINER, None) if first_in_container else (None, CONTAINER)
    one = run("one", inside)
    try:
        wait_for_epoch(2, "one", one)
        other = lehr("run", "job.yaml", "name=other", "train.epochs=1", "workers={count: 1}", around=outside)
        assert other.returncode == 0, other.stderr
        before = epoch("one")
        wait_for_epoch(before + 3, "one", one)
        events = [event["kind"] for event in Run("runs/one").folder.events()]
        assert events == ["started"], "its workers were lost"
        for words in (("resume", "one"), ("rm", "one", "--yes")):
            refused = lehr(*words, around=outside)
            assert refused.returncode == 1, refused.stdout
            assert "is being written by" in refused.stderr, refused.stderr
        wait_for_epoch(before + 4, "one", one)
    finally:
        end(one)


def test_what_a_killed_container_leaves_is_taken_over_after_a_minute_of_watching() -> None:
    one = run("one", CONTAINER)
    wait_for_epoch(2, "one", one)
    end(one)
    time.sleep(61)
    started = time.monotonic()
    resumed = run("one")
    wait_for_epoch(epoch("one") + 1, "one", resumed)
    assert time.monotonic() - started > 55
    resumed.send_signal(signal.SIGTERM)
    stdout, _ = resumed.communicate(timeout=60)
    assert "watching for 60 s whether that process lives" in stdout
    assert left_behind(resumed.pid) == []


def as_nobody(ask: Callable[[], int]) -> int:
    """The answer, from 0 to 249, of a process of another user; 250 if it has none."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(ask())
        finally:
            os._exit(250)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def post(address: str, headers: dict[str, str]) -> int:
    """The status of an answer to a job that is sent. Another user can read no module of Python that this would need."""
    body = '{"entrypoint": "true"}'
    lines = {"Host": address.removeprefix("http://"), "Content-Type": "application/json", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.socket() as one:
        one.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        one.sendall(f"POST /api/jobs/ HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return int(one.recv(1000).split()[1])


def loopback_only(session: int) -> list[str]:
    """The sockets of a cluster that listen on more than loopback."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if "/lehr-" in " ".join(process.cmdline()) or os.getsid(process.pid) == session:
                listening = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
                found += [str(each.laddr) for each in listening if "127.0.0.1" not in each.laddr.ip]
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a local cluster of two nodes, started on a fresh home folder."""
    up = lehr("cluster", "up", "--nodes", "2", "--cpus", "1")
    assert up.returncode == 0, up.stderr
    yield up.stdout.split("Dashboard: ")[1].split()[0]
    lehr("cluster", "down")


def test_a_cluster_answers_its_owner_only(cluster: str, tmp_path: Path) -> None:
    token = (tmp_path / "home/.ray/auth_token").read_text()
    right, wrong = {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer wrong"}
    assert as_nobody(lambda: post(cluster, {}) - 400) == 1
    assert as_nobody(lambda: post(cluster, wrong) - 400) == 3
    browser = {"User-Agent": "Mozilla/5.0", "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert post(cluster, {"Host": "evil.example"}) == 401, "a page that reached it through a name of its own"
    assert post(cluster, browser) == 401
    assert post(cluster, {**browser, "Cookie": f"ray-authentication-token={token}"}) == 405
    assert post(cluster, right) == 200
    (record,) = (tmp_path / "home/.lehr").glob("*/cluster.json")
    assert loopback_only(int(json.loads(record.read_text())["leaders"][0].split("-")[0])) == []
    assert token not in record.read_text()

    def reads(path: Path) -> Callable[[], int]:
        def ask() -> int:
            try:
                os.close(os.open(path, os.O_RDONLY))
                return 1
            except PermissionError:
                return 0

        return ask

    private = Path(os.environ.get("TMPDIR") or "/tmp") / f"lehr-{os.getuid()}"
    for path in (private, record.parent, record, tmp_path / "home/.ray/auth_token"):
        assert as_nobody(reads(path)) == 0, path


# What psutil says of a process moves with the clock, since it adds the ticks to the moment of the boot.
A_DAY_LATER = """\
import sys, psutil
create_time = psutil.Process.create_time
psutil.Process.create_time = lambda self: create_time(self) + 86400
sys.argv = ["lehr", "cluster", "down"]
from lehr.cli.main import main
main()
"""


def test_a_cluster_is_ended_from_its_own_namespace_only_and_whatever_the_clock_says(cluster: str) -> None:
    inside = lehr("cluster", "down", around=CONTAINER)
    assert inside.returncode == 1
    assert "there is no local cluster to stop" in inside.stderr
    status = lehr("cluster", "status")
    assert "2 nodes" in status.stdout, status.stderr
    again = lehr("cluster", "up")
    assert "already running" in again.stderr
    down = subprocess.run([sys.executable, "-c", A_DAY_LATER], capture_output=True, text=True, check=False)
    assert down.returncode == 0, down.stderr
    with pytest.raises(ConnectionError):
        post(cluster, {})


def faketime(shift: str) -> list[str]:
    """What shifts the clock of a command. The command `faketime` would use semaphores named by process id."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed")
    return ["env", f"LD_PRELOAD={found}", f"FAKETIME={shift}", "DONT_FAKE_MONOTONIC=1"]


@pytest.mark.parametrize("shift", ["+1s", "-1s", "+1h", "-1h", "+1d", "-1d"])
def test_a_run_whose_clock_is_another_is_never_taken_while_it_lives(shift: str) -> None:
    """The holder keeps time by another clock, in another container; here its process ids mean nothing."""
    Path("job.yaml").write_text(JOB)
    words = ["run", "job.yaml", "name=skewed", "--debug", "workers={count: 1}", *LONG[:2]]
    command = [*CONTAINER, *faketime(shift), *LEHR, *words]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_epoch(1, "skewed", holder)
        known = Holder.read(Run("runs/skewed").folder.folder)
        assert known is not None
        shown = {"s": 1, "h": 3600, "d": 86400}[shift[-1]] * (-1 if shift[0] == "+" else 1)
        assert abs(known.age() - shown) < 15
        started = time.monotonic()
        refused = lehr("run", *words[1:])
        assert refused.returncode == 1, refused.stdout
        assert "is being written by" in refused.stderr
        assert time.monotonic() - started < 30
        assert holder.poll() is None
    finally:
        end(holder)
