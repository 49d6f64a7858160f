"""The Ray that a job runs on: its own on this machine, as long as the job, or the cluster that `RAY_ADDRESS` names."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from ipaddress import ip_address

# Read when ray is imported. Nothing is reported to anyone, and GPUs stay visible to tasks that ask for none.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import ray_constants
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError
from ray.job_config import JobConfig

from lehr.errors import ClusterError
from lehr.machine import cores
from lehr.processes import end_marked, end_orphans, marked_children
from lehr.ray_cluster.folders import ray_folder
from lehr.ray_cluster.growth import limits
from lehr.ray_cluster.token import make_token, token
from lehr.runs.scratch import clear_scratch

ANSWER_SECONDS = 5.0
"""How long the cluster that RAY_ADDRESS names may take to answer."""
LOST_SECONDS = 45.0
"""After so long without an answer a cluster is given up. Ray itself ends this process after 60 s, without a word."""
WATCH_SECONDS, REPEAT_SECONDS = 1.0, 5.0
END_SECONDS = 5.0
"""How long Ray's own processes may take to end before they are killed."""
GO_ON = "what was saved is kept, and running the job again goes on from there"

OWN_RAY = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""What a Ray that lives for one job on this machine does without: nobody watches its metrics, and whenever one of Ray's
own processes interrupts a worker, all other workers wait for it."""


@dataclass(frozen=True)
class Resources:
    """What workers can use.

    Attributes:
        nodes: (CPUs, GPUs) of each node of a cluster; empty for the job's own Ray.
        limits: by resource, what the cluster can grow to; empty where it does not grow.
    """

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def connect(workers: int, cpus_per_worker: float | None) -> Iterator[Resources]:
    """Connects to the Ray that `RAY_ADDRESS` names; without one, starts a Ray here and stops it at the end.

    The job's own Ray counts one CPU more than the workers hold: if workers held every CPU, Ray Data could never run the
    tasks that they wait for, and would hang silently. It also counts enough CPUs for as many workers as the job asks
    for, since several workers on one core are slow but correct. A Ray that this process is already connected to is used
    as it is.

    Raises:
        ClusterError: nothing answers at RAY_ADDRESS, or the cluster there does not accept this user's token.
    """
    named = os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        if named:
            yield _shared()
        else:
            total = ray.cluster_resources()
            yield Resources(total.get("CPU", 0) - 1, total.get("GPU", 0))
        return
    if named:
        with _answering(named):
            with _own_signals(), _on_loopback() if _is_loopback(named) else nullcontext():
                # A submitted job's namespace names its run, so that others see whose resources they wait for.
                ray.init(namespace=os.environ.get("RAY_NAMESPACE"), log_to_driver=True, job_config=_without_here())
            try:
                with _watching(_Answers(named).lost):
                    yield _shared()
            finally:
                ray.shutdown()
        return
    for name, value in OWN_RAY.items():
        os.environ.setdefault(name, value)
    end_orphans()
    clear_scratch()
    make_token()
    needed = max(cores(), int(workers * (cpus_per_worker or 1)))
    folder, patience = str(ray_folder()), 0.5
    try:
        # "local": without an address Ray would join any cluster that somebody has started on this machine.
        with _own_signals(), _on_loopback(), marked_children(), _deaf_to_hangups(), _known_by_address():
            ray.init(
                "local",
                num_cpus=needed + 1,
                include_dashboard=False,
                log_to_driver=True,
                job_config=_without_here(),
                _temp_dir=folder,
            )
        patience = END_SECONDS
        with _watching(_own_head_lost):
            yield Resources(needed, ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()
        end_marked(patience)  # now and then Ray leaves a worker; of a start that was interrupted, its agents


class _WithoutHere(list[str]):
    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder != os.getcwd())


def _without_here() -> JobConfig:
    """Settings with which Ray does not put the current folder onto the path of its workers.

    It would stand before everything that is installed, so that a file in it (`statistics.py`) took the place of any
    library in every worker. Workers find a job's modules by `own_modules`.
    """
    config = JobConfig()
    config._py_driver_sys_path = _WithoutHere()
    return config


def _shared() -> Resources:
    """What the connected cluster has; others may use it too."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive)
    return Resources(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes, limits())


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Makes sure that a cluster answers at `host:port`, and within this context sends it a token if it asks for one.

    Ray itself would try for minutes, and sends a token to a named address only where RAY_AUTH_MODE=token.
    """
    name = f"RAY_ADDRESS={address}"
    leave = "to train on this machine instead, type: unset RAY_ADDRESS"
    if address == "auto" or "://" in address:  # found by Ray, or the address of another protocol
        yield
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ClusterError(f"{name} is not the address of a Ray cluster; allowed: host:port; {leave}")
    if not _speaks(address):
        raise ClusterError(f"{name}: no Ray cluster answers there within {ANSWER_SECONDS:.0f} s; {leave}")
    try:
        enabled = _accepts_us(address)
    except AuthenticationError:
        raise ClusterError(
            f"{name}: the cluster does not accept this user's token; put the cluster's token into ~/.ray/auth_token, "
            f"or name its file: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE; {leave}"
        ) from None
    except RayError as error:
        raise ClusterError(f"{name}: no Ray cluster answers there: {error}; {leave}") from None
    try:
        yield
    finally:
        if enabled:
            _set_token_mode(False)


def _speaks(address: str) -> bool:
    """Whether something answers in the protocol of Ray's daemons. Ray's own client waits for 40 s."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def _accepts_us(address: str) -> bool:
    """Asks the cluster as this user; returns whether that took the token. Raises AuthenticationError if it refuses."""
    try:
        GcsClient(address=address)
        return False
    except AuthenticationError:
        if "RAY_AUTH_MODE" in os.environ or not token():
            raise
    _set_token_mode(True)
    try:
        GcsClient(address=address)
        return True
    except BaseException:
        _set_token_mode(False)
        raise


def _set_token_mode(on: bool) -> None:
    if on:
        os.environ["RAY_AUTH_MODE"] = "token"
    else:
        os.environ.pop("RAY_AUTH_MODE", None)
    Config.initialize("")  # Ray reads the variable only then


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts within this context listens on loopback only, as it does by default on macOS and Windows.

    Elsewhere its processes listen on every network of the machine. Ray reads the environment variable for this,
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, only once, when it is imported.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _known_by_address() -> Iterator[None]:
    """The processes of a Ray that starts within this context know its address.

    Some ask for the state of their own actors (Ray Train's placement group cleaner does, and ends what is not there).
    Without an address they would ask the Ray that somebody has started last on this machine.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    os.environ.update(names)
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


@contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    """Processes that start within this context do not get SIGHUP.

    When a terminal closes, everything that it started gets the signal. Ray's processes must outlive it, so that the
    workers can save a checkpoint; the driver then ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Lost(BaseException):
    """Ray is lost. No `Exception`, so that no code takes it for an error of what it called."""


@contextmanager
def _watching(lost: Callable[[], str]) -> Iterator[None]:
    """Raises ClusterError in the main thread once `lost`, which is called every second, returns a sentence."""
    main = threading.main_thread()
    if threading.current_thread() is not main or not hasattr(signal, "SIGURG"):
        yield
        return
    done, why = threading.Event(), [""]

    def on_signal(number: int, frame: object) -> None:
        if not done.is_set():
            raise _Lost

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            if sentence := lost():
                why[0] = sentence
                signal.pthread_kill(main.ident or 0, signal.SIGURG)  # the main thread may wait for Ray
                done.wait(REPEAT_SECONDS)  # it may have met code that suppresses everything

    before = signal.signal(signal.SIGURG, on_signal)  # by default it does nothing
    thread = threading.Thread(target=watch, daemon=True, name="ray-watch")
    thread.start()
    try:
        yield
    except _Lost:
        raise ClusterError(why[0]) from None
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGURG, before)


def _own_head_lost() -> str:
    """Whether a process of this job's own Ray has ended that nothing works without, as a sentence."""
    node = ray._private.worker._global_node
    dead: list[tuple[str, object]] = node.dead_processes() if node else []
    for name, _ in dead:
        if name in ("gcs_server", "raylet"):
            return f"Ray's process {name} ended unexpectedly (it was killed, or it crashed); {GO_ON}"
    return ""


class _Answers:
    """Whether the cluster at an address still answers; it may restart its head within `LOST_SECONDS`."""

    def __init__(self, address: str) -> None:
        self.address, self.last, self.asked = address, time.monotonic(), time.monotonic()

    def lost(self) -> str:
        """A sentence once it has not answered for too long."""
        moment = time.monotonic()
        if moment - self.asked >= 10.0:
            self.asked = moment
            if ":" not in self.address or "://" in self.address or _speaks(self.address):
                self.last = time.monotonic()
        if time.monotonic() - self.last < LOST_SECONDS:
            return ""
        return f"RAY_ADDRESS={self.address}: the cluster has not answered for {LOST_SECONDS:.0f} s; {GO_ON}"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps our SIGTERM handler, which saves and stops: `ray.init` replaces it by one that only exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
