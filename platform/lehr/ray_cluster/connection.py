"""A Ray of our own on this machine for the length of one job, or the cluster that `RAY_ADDRESS` names."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Read when ray is imported. Nothing is reported to anyone, and no colour codes go to the log.
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
"""What a Ray that lives for one job on this machine does without: nobody watches its metrics, and whenever a process of
Ray's own interrupts one worker, all the others wait for it."""


@dataclass(frozen=True)
class Resources:
    """What there is for workers; `nodes` are a cluster's (CPUs, GPUs) node by node, empty for a Ray of our own."""

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()


@contextmanager
def connect(workers: int, cpus_per_worker: float | None) -> Iterator[Resources]:
    """Connects to the Ray that `RAY_ADDRESS` names; without one, runs a Ray here until the end.

    A Ray of our own counts one CPU more than the workers hold: with every CPU held by a worker, Ray Data could never
    run the tasks that they wait for, without a word. It also counts enough CPUs for as many workers as the job asks
    for, since several workers on one core are slow but right. Where this process has a Ray already, that is it.
    """
    if ray.is_initialized():  # within a cluster that this process has already
        if os.environ.get("RAY_ADDRESS"):
            yield _shared()
        else:
            total = ray.cluster_resources()
            yield Resources(total.get("CPU", 0) - 1, total.get("GPU", 0))
        return
    if os.environ.get("RAY_ADDRESS"):
        with _own_signals():
            # A submitted job's namespace names its run, for others who wait for what it holds.
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
    # "local", since without an address Ray would join whatever cluster somebody has started on this machine.
    with _own_signals(), _on_loopback():
        ray.init("local", num_cpus=needed + 1, include_dashboard=False, log_to_driver=True)
    try:
        yield Resources(needed, ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def _shared() -> Resources:
    """What the connected cluster has, which others may use too."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive)
    return Resources(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Has a Ray that starts within listen on loopback alone, as Ray has it by itself on macOS and Windows.

    Elsewhere its processes listen on every network of the machine. Ray names the variable behind this
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, and reads it once, when it is imported.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps our answer to SIGTERM, to save and stop: `ray.init` puts one in its place that just exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
