"""A development cluster on this machine, with its dashboard. It outlives the terminal, and `stop` ends nothing else.

Ray's daemons run in sessions of their own. The leader of each session is recorded, as `lehr.processes` names it.
Whatever belongs to one of these sessions, or descends from its leader, is part of the cluster; nothing else is touched.

A cluster runs what it is sent. So it asks for a token from its first second, listens on loopback unless asked for more,
and keeps its sockets and logs in a folder of this user alone.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lehr.errors import ClusterError, LehrError
from lehr.machine import cores
from lehr.monitoring.ray_env import dashboard_environment
from lehr.processes import MARK, Process, is_here, is_running, process
from lehr.ray_cluster.dashboard import DashboardClient, last_line
from lehr.ray_cluster.folders import make_state_folder, ray_folder, state_folder
from lehr.ray_cluster.token import is_disabled, make_token, token_file

EVERYWHERE = ("0.0.0.0", "::")
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Every process of a Ray that starts with this listens on loopback only, as is the default on macOS and Windows."""
RAY_ON_LOOPBACK = """\
import sys
from ray._private import ray_constants, services
services.get_node_ip_address = lambda address=None: "127.0.0.1"
ray_constants.ENABLE_RAY_CLUSTER = True
sys.argv[0] = "ray"
from ray.scripts.scripts import main
main()
"""
"""The command `ray`, which by itself refuses a second node on loopback."""
START_SECONDS = 90.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that `start` started, as `cluster.json` records it.

    Attributes:
        address: URL of its dashboard.
        gcs: `host:port` that a driver connects to (RAY_ADDRESS).
        leaders: the leader of each session, the head's first.
        log: the file that Ray's daemons print to.
        prometheus: URL of the Prometheus that scrapes it; empty where Prometheus is not installed.
    """

    address: str
    gcs: str
    leaders: tuple[Process, ...]
    log: str
    prometheus: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether its head is still running."""
        return bool(self.leaders) and is_here(self.leaders[0])

    @classmethod
    def read(cls) -> LocalCluster | None:
        """The recorded cluster, whether it still runs or not; None without a record, or with a damaged one."""
        try:
            with _record_file().open() as file:
                if os.fstat(file.fileno()).st_uid != os.getuid():
                    return None  # whoever wrote it would get this user's token
                record = json.load(file)
            leaders = [Process.parse(text) for text in record["leaders"]]
            known = tuple(leader for leader in leaders if leader)
            return cls(record["address"], record["gcs"], known, record["log"], record.get("prometheus", ""))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self) -> None:
        """Records the cluster, for later commands of this user."""
        record = {**asdict(self), "leaders": [str(leader) for leader in self.leaders]}
        new = _record_file().with_suffix(".new")
        _own_file(new).write_text(json.dumps(record))
        os.replace(new, _record_file())


def running() -> LocalCluster | None:
    """The cluster that was started here, if it is still running."""
    found = LocalCluster.read()
    return found if found and found.is_alive else None


def start(*, nodes: int = 1, cpus: int | None = None, port: int | None = None, host: str = "127.0.0.1") -> LocalCluster:
    """Starts a cluster on this machine and waits until it accepts jobs.

    Args:
        nodes: how many Ray nodes; more than one simulates a cluster of several machines.
        cpus: CPUs of each node; by default all cores, and on the first node one more for loading data.
        port: port of the dashboard; by default 8265, or a free port where that one is in use.
        host: the address that the dashboard listens on; everything else listens on loopback only.

    Raises:
        LehrError: one is already running, the dashboard would be open to the network without a token, or Ray did not
            start; the sentence says what Ray printed last.
    """
    if found := running():
        raise LehrError(f"a local cluster is already running at {found.address}; stop it with: lehr cluster down")
    if is_disabled() and not _is_loopback(host):
        raise LehrError(
            f"RAY_AUTH_MODE=disabled would let everyone who reaches {host} run commands as you; unset it first: "
            "unset RAY_AUTH_MODE"
        )
    folder = make_state_folder()
    log = _own_file(folder / "cluster.log")
    if port is not None and not _is_free(port, host):
        raise LehrError(f"port {port} is in use; choose another one with --port")
    make_token()
    dashboard, gcs = port or (8265 if _is_free(8265, host) else _free_port()), _free_port()
    prometheus = f"http://127.0.0.1:{_free_port()}" if shutil.which("prometheus") else ""
    address = f"http://{'127.0.0.1' if host in EVERYWHERE else f'[{host}]' if ':' in host else host}:{dashboard}"
    cluster = LocalCluster(address, f"127.0.0.1:{gcs}", (), str(log), prometheus)
    environment, rays = _environment(os.environ, prometheus), ray_folder()
    head = [
        "--head", "--include-dashboard=true", f"--dashboard-host={host}", f"--dashboard-port={dashboard}",
        "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={_free_port()}",
        f"--num-cpus={(cpus or cores()) + (cpus is None)}", f"--temp-dir={rays}", "--disable-usage-stats",
    ]  # fmt: skip
    try:
        cluster = _start_node(cluster, head, environment)
        _wait_for_nodes(cluster, 1)
        for number in range(2, nodes + 1):  # one after the other: together they are too much for a small machine
            # In a shared folder, a node that unpacks a job's files would delete those of the other nodes' processes.
            folder_of_its_own = f"--temp-dir={rays}/node-{number}"
            worker = [
                f"--address={cluster.gcs}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus or cores()}",
                folder_of_its_own, "--disable-usage-stats",
            ]  # fmt: skip
            cluster = _start_node(cluster, worker, environment)
            _wait_for_nodes(cluster, number)
        if prometheus:
            cluster = _start_prometheus(cluster, environment, rays)
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
    command = [sys.executable, "-c", RAY_ON_LOOPBACK, "start", "--block", agent]
    return _launch(cluster, [*command, *options], environment)


def _start_prometheus(cluster: LocalCluster, environment: Mapping[str, str], rays: Path) -> LocalCluster:
    """A Prometheus that scrapes the cluster and evaluates lehr's rules; files for a Grafana lie beside its own."""
    from lehr.monitoring.prometheus import DISCOVERY
    from lehr.monitoring.provisioning import files, write

    folder = state_folder() / "monitoring"
    # In the session's own folder: the folder above names the targets of the Ray that was started last on this machine.
    discovery = rays / DashboardClient(cluster.address).session() / Path(DISCOVERY).name
    write(folder, files(prometheus=cluster.prometheus, cluster="local", discovery=str(discovery), ray=cluster.address))
    command = [
        "prometheus", f"--config.file={folder}/prometheus/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={cluster.prometheus.removeprefix('http://')}",
    ]  # fmt: skip
    return _launch(cluster, command, environment)


def _launch(cluster: LocalCluster, command: list[str], environment: Mapping[str, str]) -> LocalCluster:
    """Starts a process in a session of its own and records it at once."""
    with open(cluster.log, "ab") as log:
        leader = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(environment),
        )  # fmt: skip
    cluster = replace(cluster, leaders=(*cluster.leaders, process(leader.pid)))
    cluster.write()
    return cluster


def _wait_for_nodes(cluster: LocalCluster, nodes: int) -> None:
    """Waits until the dashboard accepts jobs and `nodes` nodes have joined."""
    dashboard = DashboardClient(cluster.address)
    deadline = time.monotonic() + START_SECONDS
    why = ""
    while time.monotonic() < deadline:
        for leader in cluster.leaders:
            if not is_here(leader):
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
        members |= {member.pid: member for member in _session_members(leader)}
    for leader in reversed(cluster.leaders):
        if is_here(leader):
            with suppress(ProcessLookupError):
                os.kill(leader.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(list(members.values()), timeout=STOP_SECONDS)
    for member in alive:
        try:
            member.kill()  # psutil checks that it is still the same process
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    _record_file().unlink(missing_ok=True)


def _session_members(leader: Process) -> list[psutil.Process]:
    """The leader's descendants and every process of its session, even where the leader itself is gone."""
    lives = is_here(leader)
    if not lives and (is_running(leader) or psutil.pid_exists(leader.pid)):
        return []  # it is not of this machine, or the id now belongs to another process, and so may the session
    found = [psutil.Process(leader.pid)] if lives else []
    members = [*found, *(child for each in found for child in each.children(recursive=True))]
    known = {member.pid for member in members}
    for other in psutil.process_iter():
        try:
            if other.pid not in known and os.getsid(other.pid) == leader.pid:
                started = process(other.pid).started
                if started is not None and leader.started is not None and started >= leader.started:
                    members.append(other)
        except (psutil.Error, OSError):
            continue
    return members


def _environment(variables: Mapping[str, str], prometheus: str) -> dict[str, str]:
    """The environment that the cluster's daemons, and so its jobs, start with."""
    dashboard = dashboard_environment(grafana=variables.get("RAY_GRAFANA_HOST"), prometheus=prometheus or None)
    found = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "PASSIVE", **dashboard, **variables, **ON_LOOPBACK}
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", MARK):
        found.pop(name, None)
    if not is_disabled():
        # Ray asks for a token by itself only where it finds one, and its further nodes never do.
        found["RAY_AUTH_MODE"] = "token"
        if "RAY_AUTH_TOKEN" not in found:
            found["RAY_AUTH_TOKEN_PATH"] = str(token_file().absolute())
    # Jobs run `python`, which must be this one.
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    return found


def _record_file() -> Path:
    return state_folder() / "cluster.json"


def _own_file(path: Path) -> Path:
    """An empty file that only its owner can read."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def _without_colours(log: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(log).read_text(errors="replace"))


def _is_free(port: int, host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise LehrError(f"--host {host} is no address of this machine: {error.strerror}") from None
            return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
