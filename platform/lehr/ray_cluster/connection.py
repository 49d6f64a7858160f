"""The Ray that a job runs on: its own on this machine, as long as the job, or the cluster that `RAY_ADDRESS` names."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Read when ray is imported. Nothing is reported to anyone, and GPUs stay visible to tasks that ask for none.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private import ray_constants

from lehr.machine import cores
from lehr.ray_cluster.orphans import end_orphans, mark_children
from lehr.runs.scratch import clear_scratch

OWN_RAY = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""What a Ray that lives for one job on this machine does without: nobody watches its metrics, and whenever one of Ray's
own processes interrupts a worker, all other workers wait for it."""


@dataclass(frozen=True)
class Resources:
    """What workers can use. `nodes` holds (CPUs, GPUs) for each node of a cluster; empty for the job's own Ray."""

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()


@contextmanager
def connect(workers: int, cpus_per_worker: float | None) -> Iterator[Resources]:
    """Connects to the Ray that `RAY_ADDRESS` names; without one, starts a Ray here and stops it at the end.

    The job's own Ray counts one CPU more than the workers hold: if workers held every CPU, Ray Data could never run the
    tasks that they wait for, and would hang silently. It also counts enough CPUs for as many workers as the job asks
    for, since several workers on one core are slow but correct. A Ray that this process is already connected to is used
    as it is.
    """
    if ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            yield _shared()
        else:
            total = ray.cluster_resources()
            yield Resources(total.get("CPU", 0) - 1, total.get("GPU", 0))
        return
    if os.environ.get("RAY_ADDRESS"):
        with _own_signals():
            # A submitted job's namespace names its run, so that others see whose resources they wait for.
            ray.init(namespace=os.environ.get("RAY_NAMESPACE"), log_to_driver=True)
        try:
            yield _shared()
        finally:
            ray.shutdown()
        return
    for name, value in OWN_RAY.items():
        os.environ.setdefault(name, value)
    end_orphans()
    clear_scratch()
    mark_children()
    needed = max(cores(), int(workers * (cpus_per_worker or 1)))
    # "local": without an address Ray would join any cluster that somebody has started on this machine.
    with _own_signals(), _on_loopback():
        ray.init("local", num_cpus=needed + 1, include_dashboard=False, log_to_driver=True)
    try:
        yield Resources(needed, ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def _shared() -> Resources:
    """What the connected cluster has; others may use it too."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive)
    return Resources(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes)


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
def _own_signals() -> Iterator[None]:
    """Keeps our SIGTERM handler, which saves and stops: `ray.init` replaces it by one that only exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
