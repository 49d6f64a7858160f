"""Ray's side of training: the same loop in every worker of a Ray Train worker group."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

# Read when Ray Train is imported. Its controller looks at the workers once per interval: at the default of 2 s, a
# start, an end and a failure are each noticed up to 2 s late; at 0.2 s the looking takes 2 % of a core.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# A worker whose process does not answer for this long (stopped, say) is ended, and the group starts again.
os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "60")

import psutil
import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.context import get_train_context

from lehr.data.load import splits
from lehr.data.ray_data import Handle
from lehr.errors import LehrError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.paths import add_to_path
from lehr.runs import Folder, RunFolder
from lehr.runs.scratch import scratch
from lehr.training.allocation import WorkerResources
from lehr.training.failures import describe, lost, lost_peer
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

RESIZE_SECONDS = 30.0
"""How often an elastic run looks whether it could have more workers. To take them it starts from a checkpoint."""
WAIT_SECONDS = 300
"""How long a worker waits for the others before it takes them for lost: longer than storage may be gone."""


def fit(
    job: TrainJob,
    folder: Folder,
    shared: Mapping[str, Handle],
    share: WorkerResources,
    work: Callable[[Plan, RunFolder, Group], Any] | None = None,
) -> None:
    """Trains on a worker group, starting it again after a lost worker or node, as often as `workers.retries` allows.

    Returns when the run has finished, stopped or failed; the run folder says which.

    Args:
        work: what every worker does; by default it trains, and watches the run folder for a request to stop.

    Raises:
        ray.train.TrainingFailedError: the worker group failed more often than that.
    """
    with scratch(folder, on_every_node=sum(node["Alive"] for node in ray.nodes()) > 1) as place:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "job": to_dict(job),
                "job_folder": str(job.folder),
                "folder": folder.uri,
                "shared": shared,
                "threads": max(1, int(share.cpus)),
                "work": work or _train,
            },
            scaling_config=ScalingConfig(
                num_workers=share.workers,
                use_gpu=share.gpus > 0,
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
                resources_per_worker={"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})},
            ),
            torch_config=_Torch(timeout_s=WAIT_SECONDS),
            run_config=RunConfig(
                name=folder.name,
                storage_path=place,
                failure_config=FailureConfig(max_failures=job.workers.retries),
                callbacks=[_Losses(folder.uri)],
            ),
        )
        trainer.fit()


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's own, on Ray's network."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_rays_network)
        super().on_start(worker_group, backend_config)


class _Torch(TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def use_rays_network() -> None:
    """Has Gloo take the interface with this node's address in Ray, unless `GLOO_SOCKET_IFNAME` says another.

    NCCL looks for an interface by itself, loopback last: on a Ray that is on loopback it is told too.

    By itself it takes the address that the machine's own name stands for. On many that is 127.0.0.1 or 127.0.1.1, and
    workers on two such machines look for each other at home.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            if ipaddress.ip_address(address).is_loopback:
                os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


class _Losses(UserCallback):
    """Notes in the run folder why a worker group ended, for the next one to tell. Lives in Train's controller."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        folder = Folder.at(self.folder, known=True)
        if not folder.exists("failure.json"):
            folder.write_json("lost.json", {"sentence": lost(worker_exceptions)})


def _worker(config: dict[str, Any]) -> None:
    """What each worker runs."""
    add_to_path(config["job_folder"])
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    run = RunFolder.open(Folder.at(config["folder"], known=True))
    if run.folder.exists("failure.json"):
        return  # an earlier attempt failed in a way that another one would repeat
    try:
        job = from_dict(config["job"])
        assert isinstance(job, TrainJob)
        images = {name: handle.open() for name, handle in config["shared"].items()}
        config["work"](Plan.make(job, splits(job, images)), run, group)
    except Exception as error:
        if not lost_peer(error):
            with suppress(LehrError):  # where nothing can be written, the error itself is all there is
                run.folder.create("failure.json", json.dumps(describe(error), indent=1).encode())
        raise


def _train(plan: Plan, run: RunFolder, group: Group) -> None:
    train(plan, run, group, stop_watcher(run), must_save=going_away)


def going_away() -> str | None:
    """Says whether a machine of the group is about to be taken away: Ray's notice of a drained or preempted node.

    Ray Train tells every worker of the group; its public `get_preemption_info` is a meeting of all of them, which would
    cost as much as a step.
    """
    notice = get_train_context().preemption_context.preemption_info
    if notice is None:
        return None
    few = ", ".join(f"worker {rank}" for rank in notice.preempted_ranks)
    return f"the machine of {few} is about to be taken away"


def stop_watcher(run: RunFolder) -> Callable[[], str | None]:
    """Says whether the run folder holds a request to stop, looking at remote storage only every few seconds."""
    every = 0.0 if run.folder.is_local else 3.0
    last = float("-inf")

    def should_stop() -> str | None:
        nonlocal last
        if time.monotonic() - last < every:
            return None
        last = time.monotonic()
        return run.stop_requested()

    return should_stop
