"""A slow or broken network between two nodes of a real Ray, each in its own network namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lehr import Run
from tests.faults.accidents import is_root
from tests.support import largest_difference, records

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

JOB = """\
kind: train
data: {source: digits, limit: 660}
model: {name: my_nets:Slow}
optimizer: {lr: 0.05, momentum: 0.9}
train: {epochs: 150, batch_size: 64, precision: fp64, checkpoint: {every: 9step}}
workers: {count: [1, 2], cpus: 1}
"""
INTERVAL = 9
NETS = """\
import os, time
from torch import nn

class Slow(nn.Sequential):
    def __init__(self, channels: int, outputs: int):
        super().__init__(nn.Flatten(), nn.Linear(64 * channels, 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(self, x):
        if self.training:
            time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        return super().forward(x)
"""
NOTICED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
"""Ray gives up a node that does not answer for 10 to 15 s; its default is a minute."""
HEAD, OTHER, SPACE, LINK = "10.231.7.1", "10.231.7.2", "lehr-far", "lehr-link"


def ip(*words: str, space: str = "") -> None:
    inside = ["-n", space] if space else []
    subprocess.run(["ip", *inside, *words], check=True, capture_output=True, text=True)


class Nodes:
    """A head node with one CPU, and a second node with one CPU behind a link that can be cut."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, **NOTICED, "SECONDS_A_STEP": "0.1", "RAY_ADDRESS": f"{HEAD}:6399"}

    def open(self) -> None:
        ip("netns", "add", SPACE)
        ip("link", "add", LINK, "type", "veth", "peer", "name", "far", "netns", SPACE)
        ip("addr", "add", f"{HEAD}/24", "dev", LINK)
        ip("link", "set", LINK, "up")
        ip("addr", "add", f"{OTHER}/24", "dev", "far", space=SPACE)
        ip("link", "set", "far", "up", space=SPACE)
        ip("link", "set", "lo", "up", space=SPACE)
        self._start([], "--head", f"--node-ip-address={HEAD}", "--port=6399", "--include-dashboard=false")
        time.sleep(3)
        self.join()

    def join(self) -> None:
        """The second node joins, or joins again."""
        inside = ["ip", "netns", "exec", SPACE]
        self._start(inside, f"--address={HEAD}:6399", f"--node-ip-address={OTHER}")

    def _start(self, inside: list[str], *options: str) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *options]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        self.processes.append(subprocess.Popen([*inside, *ray], env=self.environment, **quiet))

    def link(self, up: bool) -> None:
        ip("link", "set", LINK, "up" if up else "down")

    def narrow(self, rate: str = "") -> None:
        """Limits the bandwidth of the link, in units of `tc`; empty: no limit."""
        shape = ["add", "dev", LINK, "root", "tbf", "rate", rate, "burst", "16kbit", "latency", "400ms"]
        subprocess.run(["tc", "qdisc", *(shape if rate else ["del", "dev", LINK, "root"])], check=True)

    def close(self) -> None:
        for process in self.processes:
            for pid in _session(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
        subprocess.run(["ip", "link", "del", LINK], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", SPACE], check=False, capture_output=True)


def _session(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if not is_root() or subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode:
        pytest.skip("only root can create a network namespace")
    nodes = Nodes()
    try:
        nodes.open()
        yield nodes
    finally:
        nodes.close()


def until(
    condition: Callable[[dict[str, Any]], bool], process: subprocess.Popen[str], seconds: float = 180
) -> dict[str, Any]:
    """Waits for progress of the run that meets the condition, and returns it."""
    file, deadline = Path("runs/linked/progress.json"), time.monotonic() + seconds
    while True:
        progress = json.loads(file.read_text()) if file.exists() else {}
        if progress and condition(progress):
            return progress
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"still {progress}"
        time.sleep(0.1)


def kinds(run: str = "runs/linked") -> list[str]:
    return [event["kind"] for event in Run(run).folder.events()]


def test_a_link_that_is_cut_briefly_then_slow_then_cut_for_good_costs_time_and_one_restart(nodes: Nodes) -> None:
    Path("job.yaml").write_text(JOB)
    Path("my_nets.py").write_text(NETS)
    command = [sys.executable, "-m", "lehr", "run", "job.yaml"]
    subprocess.run([*command, "--debug", "name=whole"], check=True, capture_output=True, timeout=240)
    said: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "name=linked"], env=nodes.environment, start_new_session=True, **said)
    try:
        start = until(lambda progress: progress["workers"] == 2 and progress["epochs_done"] >= 3, process)

        nodes.link(up=False)
        time.sleep(3)
        nodes.link(up=True)
        after = until(lambda progress: progress["epoch"] > start["epoch"] + 4, process)
        assert kinds() == ["started"], "a cut of three seconds ended the workers"

        nodes.narrow("8mbit")
        slow = until(lambda progress: progress["epoch"] > after["epoch"] + 2, process)
        nodes.narrow()
        assert kinds() == ["started"], "a slow link ended the workers"

        nodes.link(up=False)
        alone = until(lambda progress: progress["workers"] == 1 and progress["epoch"] > slow["epoch"] + 2, process)
        nodes.link(up=True)
        nodes.join()  # Ray ends a node that it has given up
        until(lambda progress: progress["workers"] == 2 and progress["epoch"] > alone["epoch"] + 2, process)
        _, stderr = process.communicate(timeout=300)
    finally:
        for pid in _session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, stderr

    # Another number of workers sums in another order: equal to nine digits in float64, not to the last digit.
    run = Run("runs/linked").folder
    for one, other in zip(records(Run("runs/whole").folder), records(run), strict=True):
        assert largest_difference(one, other) < 1e-9
    events = run.events()
    lost = [event for event in events if event["kind"] == "lost"]
    resumed = [event for event in events if event["kind"] == "resumed"]
    assert [event["message"].rpartition("with ")[2] for event in resumed] == ["1 worker", "2 workers"], events
    assert "worker" in lost[0]["message"]
    assert lost[0]["step"] - resumed[0]["step"] <= INTERVAL
