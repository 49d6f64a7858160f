"""A development cluster on this machine, with its dashboard. It outlives the terminal, and `stop` ends nothing else.

Ray's daemons run in sessions of their own. The leader of each session is recorded with the time it started. Whatever
belongs to one of these sessions, or descends from its leader, is part of the cluster; nothing else is touched.
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

from lehr.errors import ClusterError, LehrError
from lehr.machine import cores
from lehr.monitoring.ray_env import dashboard_environment
from lehr.ray_cluster.dashboard import DashboardClient, last_line

START_SECONDS = 90.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that `start` started, as `cluster.json` records it.

    Attributes:
        address: URL of its dashboard.
        gcs: `host:port` that a driver connects to (RAY_ADDRESS).
        leaders: process id and start time (seconds since 1970) of each session's leader, the head's first.
        log: the file that Ray's daemons print to.
        prometheus: URL of the Prometheus that scrapes it; empty where Prometheus is not installed.
    """

    address: str
    gcs: str
    leaders: tuple[tuple[int, float], ...]
    log: str
    prometheus: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether its head is still running."""
        return bool(self.leaders) and _process(*self.leaders[0]) is not None

    @classmethod
    def read(cls) -> LocalCluster | None:
        """The recorded cluster, whether it still runs or not; None without a record, or with a damaged one."""
        try:
            record = json.loads(_record_file().read_text())
            leaders = tuple((int(pid), float(started)) for pid, started in record["leaders"])
            return cls(record["address"], record["gcs"], leaders, record["log"], record.get("prometheus", ""))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self) -> None:
        """Records the cluster, for later commands of this user."""
        _record_file().write_text(json.dumps(asdict(self)))
        _record_file().chmod(0o600)


def state_folder() -> Path:
    """Where this user's cluster on this machine is recorded: LEHR_STATE, else ~/.lehr."""
    return Path(os.environ.get("LEHR_STATE") or "~/.lehr").expanduser()


def running() -> LocalCluster | None:
    """The cluster that was started here, if it is still running."""
    found = LocalCluster.read()
    return found if found and found.is_alive else None


def start(*, nodes: int = 1, cpus: int | None = None, port: int | None = None) -> LocalCluster:
    """Starts a cluster on this machine and waits until it accepts jobs.

    Args:
        nodes: how many Ray nodes; more than one simulates a cluster of several machines.
        cpus: CPUs of each node; by default all cores, and on the first node one more for loading data.
        port: port of the dashboard; by default 8265, or a free port where that one is in use.

    Raises:
        LehrError: one is already running, or Ray did not start; the sentence says what Ray printed last.
    """
    if found := running():
        raise LehrError(f"a local cluster is already running at {found.address}; stop it with: lehr cluster down")
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "cluster.log"
    log.write_text("")
    if port is not None and not _is_free(port):
        raise LehrError(f"port {port} is in use; choose another one with --port")
    dashboard, gcs = port or (8265 if _is_free(8265) else _free_port()), _free_port()
    prometheus = f"http://127.0.0.1:{_free_port()}" if shutil.which("prometheus") else ""
    cluster = LocalCluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", (), str(log), prometheus)
    environment = _environment(os.environ, prometheus)
    head = [
        "--head", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={_free_port()}",
        f"--num-cpus={(cpus or cores()) + (cpus is None)}", "--disable-usage-stats",
    ]  # fmt: skip
    try:
        cluster = _start_node(cluster, head, environment)
        _wait_for_nodes(cluster, 1)
        for number in range(2, nodes + 1):  # one after the other: together they are too much for a small machine
            # In a shared folder, a node that unpacks a job's files would delete those of the other nodes' processes.
            folder_of_its_own = f"--temp-dir={_ray_folder(environment)}/node-{number}"
            worker = [
                f"--address={cluster.gcs}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus or cores()}",
                folder_of_its_own, "--disable-usage-stats",
            ]  # fmt: skip
            cluster = _start_node(cluster, worker, environment)
            _wait_for_nodes(cluster, number)
        if prometheus:
            cluster = _start_prometheus(cluster, environment)
    except BaseException:
        _stop_processes(cluster)
        raise
    return cluster


def stop() -> LocalCluster:
    """Stops the cluster that `start` started, and nothing else.

    Raises:
        LehrError: there is none.
    """
    found = LocalCluster.read()
    if found is None:
        raise LehrError("there is no local cluster to stop; lehr cluster up starts one")
    _stop_processes(found)
    return found


def _start_node(cluster: LocalCluster, options: list[str], environment: Mapping[str, str]) -> LocalCluster:
    """Runs one more `ray start`."""
    agent = f"--dashboard-agent-listen-port={_free_port()}"  # nodes on one machine must not share it
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", agent]
    return _launch(cluster, [*command, *options], environment)


def _start_prometheus(cluster: LocalCluster, environment: Mapping[str, str]) -> LocalCluster:
    """A Prometheus that scrapes the cluster and evaluates lehr's rules; files for a Grafana lie beside its own."""
    from lehr.monitoring.prometheus import DISCOVERY
    from lehr.monitoring.provisioning import files, write

    folder = state_folder() / "monitoring"
    # In the session's own folder: the folder above names the targets of the Ray that was started last on this machine.
    discovery = _ray_folder(environment) / DashboardClient(cluster.address).session() / Path(DISCOVERY).name
    write(folder, files(prometheus=cluster.prometheus, cluster="local", discovery=str(discovery), ray=cluster.address))
    command = [
        "prometheus", f"--config.file={folder}/prometheus/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={cluster.prometheus.removeprefix('http://')}",
    ]  # fmt: skip
    return _launch(cluster, command, environment)


def _launch(cluster: LocalCluster, command: list[str], environment: Mapping[str, str]) -> LocalCluster:
    """Starts a process in a session of its own and records it at once."""
    with open(cluster.log, "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(environment),
        )  # fmt: skip
    leader = (process.pid, psutil.Process(process.pid).create_time())
    cluster = replace(cluster, leaders=(*cluster.leaders, leader))
    cluster.write()
    return cluster


def _wait_for_nodes(cluster: LocalCluster, nodes: int) -> None:
    """Waits until the dashboard accepts jobs and `nodes` nodes have joined."""
    dashboard = DashboardClient(cluster.address)
    deadline = time.monotonic() + START_SECONDS
    why = ""
    while time.monotonic() < deadline:
        for leader in cluster.leaders:
            if _process(*leader) is None:
                raise LehrError(
                    f"Ray did not start: {last_line(_without_colours(cluster.log))} (full log: {cluster.log})"
                )
        try:
            dashboard.call("GET", "/api/jobs/")
            if (joined := dashboard.nodes()) >= nodes:
                return
            why = f"only {joined} of {nodes} nodes have joined"
        except ClusterError as error:
            why = str(error)
        time.sleep(0.3)
    raise LehrError(f"Ray did not start within {START_SECONDS:.0f} s: {why} (full log: {cluster.log})")


def _stop_processes(cluster: LocalCluster) -> None:
    """Asks Ray's session leaders to end their processes, then kills what is left of their sessions."""
    members: dict[int, psutil.Process] = {}
    for leader in cluster.leaders:
        members |= {process.pid: process for process in _session_members(leader)}
    for leader in reversed(cluster.leaders):
        if process := _process(*leader):
            process.terminate()
    _, alive = psutil.wait_procs(list(members.values()), timeout=STOP_SECONDS)
    for process in alive:
        try:
            process.kill()  # psutil checks that it is still the same process
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    _record_file().unlink(missing_ok=True)


def _session_members(leader: tuple[int, float]) -> list[psutil.Process]:
    """The leader's descendants and every process of its session, even where the leader itself is gone."""
    pid, started = leader
    found = _process(pid, started)
    if found is None and psutil.pid_exists(pid):
        return []  # the id now belongs to another process, and so may the session
    members = [found, *found.children(recursive=True)] if found else []
    known = {process.pid for process in members}
    for process in psutil.process_iter():
        try:
            if process.pid not in known and os.getsid(process.pid) == pid and process.create_time() >= started - 1:
                members.append(process)
        except (psutil.Error, OSError):
            continue
    return members


def _process(pid: int, started: float) -> psutil.Process | None:
    """The process with this id, if it is the one that was started then."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.NoSuchProcess:
        return None


def _environment(variables: Mapping[str, str], prometheus: str) -> dict[str, str]:
    """The environment that the cluster's daemons, and so its jobs, start with."""
    dashboard = dashboard_environment(grafana=variables.get("RAY_GRAFANA_HOST"), prometheus=prometheus or None)
    found = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "PASSIVE", **dashboard, **variables}
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        found.pop(name, None)
    # Jobs run `python`, which must be this one.
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    return found


def _ray_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its sockets and logs."""
    return Path(environment.get("RAY_TMPDIR") or "/tmp") / "ray"


def _record_file() -> Path:
    return state_folder() / "cluster.json"


def _without_colours(log: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(log).read_text(errors="replace"))


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
