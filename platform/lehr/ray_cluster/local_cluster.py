"""A Ray cluster on this machine for development, with its dashboard. It survives the terminal; `down` ends only it.

Ray's daemons run in sessions of their own, whose leaders are written down with the time they started. Whatever belongs
to one of these sessions, or descends from its leader, is ours; nothing else is touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lehr.errors import LehrError
from lehr.machine import cores
from lehr.monitoring.ray_env import dashboard_environment

START_SECONDS = 90.0
END_SECONDS = 15.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that `up` started.

    Attributes:
        address: of its dashboard.
        gcs: `host:port` that a driver connects to (RAY_ADDRESS).
        leaders: process id and start time (seconds since 1970) of each session's leader, the head's first.
        log: what Ray's daemons print.
        prometheus: address of the Prometheus that watches it; empty where none is installed.
    """

    address: str
    gcs: str
    leaders: tuple[tuple[int, float], ...]
    log: str
    prometheus: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether its head still runs."""
        return bool(self.leaders) and _process(*self.leaders[0]) is not None


def state_folder() -> Path:
    """Where the cluster of this user and machine is written down: LEHR_STATE, else ~/.lehr."""
    return Path(os.environ.get("LEHR_STATE") or "~/.lehr").expanduser()


def recorded() -> LocalCluster | None:
    """The cluster that was started here and still runs."""
    found = _read()
    return found if found and found.is_alive else None


def up(*, nodes: int = 1, cpus: int | None = None, port: int | None = None) -> LocalCluster:
    """Starts a cluster on this machine and waits until it takes jobs.

    Args:
        nodes: Ray nodes; more than one makes this machine look like several.
        cpus: CPUs of each node; by default all cores, and on the first one more for reading data.
        port: of the dashboard; by default 8265, or a free one where that is taken.

    Raises:
        LehrError: there is one already, or Ray did not start; the sentence says what it printed last.
    """
    if found := recorded():
        raise LehrError(f"a cluster of yours runs here already, at {found.address}; end it with: lehr cluster down")
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "cluster.log"
    log.write_text("")
    if port is not None and not _is_free(port):
        raise LehrError(f"port {port} is taken; name another with --port")
    dashboard, gcs = port or (8265 if _is_free(8265) else _free_port()), _free_port()
    watched = f"http://127.0.0.1:{_free_port()}" if shutil.which("prometheus") else ""
    cluster = LocalCluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", (), str(log), watched)
    environment = _environment(os.environ, watched)
    head = [
        "--head", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={_free_port()}",
        f"--num-cpus={(cpus or cores()) + (cpus is None)}", "--disable-usage-stats",
    ]  # fmt: skip
    try:
        cluster = _start(cluster, head, environment)
        _wait(cluster)
        for number in range(2, nodes + 1):  # one by one: together they are too much for a small machine
            # In one folder, a node that unpacks a job's files would delete them under the other nodes' processes.
            own = f"--temp-dir={_ray_folder(environment)}/node-{number}"
            more = [f"--address={cluster.gcs}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus or cores()}", own]
            cluster = _start(cluster, [*more, "--disable-usage-stats"], environment)
            _wait(cluster, number)
        if watched:
            cluster = _watch(cluster, environment)
    except BaseException:
        _end(cluster)
        raise
    return cluster


def down() -> LocalCluster:
    """Ends the cluster that `up` started, and nothing else.

    Raises:
        LehrError: there is none.
    """
    found = _read()
    if found is None:
        raise LehrError("no cluster was started here with lehr cluster up")
    _end(found)
    return found


def _start(cluster: LocalCluster, words: list[str], environment: Mapping[str, str]) -> LocalCluster:
    """One more `ray start`."""
    agent = f"--dashboard-agent-listen-port={_free_port()}"  # nodes on one machine must not share it
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", agent]
    return _launch(cluster, [*start, *words], environment)


def _watch(cluster: LocalCluster, environment: Mapping[str, str]) -> LocalCluster:
    """A Prometheus that scrapes the cluster and judges our rules; files for a Grafana lie beside its own."""
    from lehr.monitoring.prometheus import DISCOVERY
    from lehr.monitoring.provisioning import files, write
    from lehr.submission.ray_jobs import RayJobs

    folder = state_folder() / "monitoring"
    # In the session's own folder: the one above it names the targets of whichever Ray of this machine came last.
    discovery = _ray_folder(environment) / RayJobs(cluster.address).session() / Path(DISCOVERY).name
    write(folder, files(prometheus=cluster.prometheus, cluster="local", discovery=str(discovery), ray=cluster.address))
    words = [
        "prometheus", f"--config.file={folder}/prometheus/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={cluster.prometheus.removeprefix('http://')}",
    ]  # fmt: skip
    return _launch(cluster, words, environment)


def _launch(cluster: LocalCluster, words: list[str], environment: Mapping[str, str]) -> LocalCluster:
    """A process in a session of its own, written down at once."""
    with open(cluster.log, "ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(environment),
        )  # fmt: skip
    leader = (process.pid, psutil.Process(process.pid).create_time())
    cluster = replace(cluster, leaders=(*cluster.leaders, leader))
    _record().write_text(json.dumps(asdict(cluster)))
    _record().chmod(0o600)
    return cluster


def _wait(cluster: LocalCluster, nodes: int = 1) -> None:
    """Until the dashboard takes jobs and all nodes are there."""
    from lehr.submission.ray_jobs import ClusterError, RayJobs

    jobs = RayJobs(cluster.address)
    deadline = time.monotonic() + START_SECONDS
    why = ""
    while time.monotonic() < deadline:
        for leader in cluster.leaders:
            if _process(*leader) is None:
                raise LehrError(f"Ray did not start: {_last_words(cluster.log)} (all of it: {cluster.log})")
        try:
            jobs.jobs()
            if jobs.nodes() >= nodes:
                return
            why = f"only {jobs.nodes()} of {nodes} nodes are there"
        except ClusterError as error:
            why = str(error)
        time.sleep(0.3)
    raise LehrError(f"Ray did not start within {START_SECONDS:.0f} s: {why} (its log: {cluster.log})")


def _end(cluster: LocalCluster) -> None:
    """Asks Ray's own leaders to end theirs, then ends what is left of their sessions."""
    ours: dict[int, psutil.Process] = {}
    for leader in cluster.leaders:
        ours |= {process.pid: process for process in _family(leader)}
    for leader in reversed(cluster.leaders):
        if process := _process(*leader):
            process.terminate()
    _, alive = psutil.wait_procs(list(ours.values()), timeout=END_SECONDS)
    for process in alive:
        try:
            process.kill()  # psutil makes sure that it is still the same process
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    _record().unlink(missing_ok=True)


def _family(leader: tuple[int, float]) -> list[psutil.Process]:
    """The leader's descendants and every process of its session, even where the leader itself is gone."""
    pid, started = leader
    found = _process(pid, started)
    if found is None and psutil.pid_exists(pid):
        return []  # the number is another process's now, and so may be the session
    family = [found, *found.children(recursive=True)] if found else []
    known = {process.pid for process in family}
    for process in psutil.process_iter():
        try:
            if process.pid not in known and os.getsid(process.pid) == pid and process.create_time() >= started - 1:
                family.append(process)
        except (psutil.Error, OSError):
            continue
    return family


def _process(pid: int, started: float) -> psutil.Process | None:
    """The process of this number, if it is the one that was started then."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.NoSuchProcess:
        return None


def _environment(variables: Mapping[str, str], prometheus: str) -> dict[str, str]:
    """What the cluster's daemons, and so its jobs, start with."""
    watched = dashboard_environment(grafana=variables.get("RAY_GRAFANA_HOST"), prometheus=prometheus or None)
    found = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "PASSIVE", **watched, **variables}
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        found.pop(name, None)
    # Jobs call `python`: it must be this one.
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    return found


def _ray_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps sockets and logs."""
    return Path(environment.get("RAY_TMPDIR") or "/tmp") / "ray"


def _record() -> Path:
    return state_folder() / "cluster.json"


def _read() -> LocalCluster | None:
    try:
        said = json.loads(_record().read_text())
        leaders = tuple((int(pid), float(started)) for pid, started in said["leaders"])
        return LocalCluster(said["address"], said["gcs"], leaders, said["log"], said.get("prometheus", ""))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _last_words(log: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", Path(log).read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
