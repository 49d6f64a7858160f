"""Ray's side of training: the same loop in every worker of a Ray Train worker group."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypedDict

# Read when Ray Train is imported. Its controller polls the workers once per interval: at the default of 2 s, a start,
# an end and a failure are each noticed up to 2 s late; at 0.2 s polling takes 2 % of a core.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# A worker whose process does not answer for this long (one that was suspended, say) is killed, and the group restarts.
os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "60")
# How often it looks whether a node is about to be taken away; by default every 5 s, of which a spot node has six.
os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")

import psutil
import ray
import torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from lehr.data.load import splits
from lehr.data.ray_data import Handle
from lehr.errors import LehrError, RunLost
from lehr.job import TrainJob, from_dict, to_dict
from lehr.own_modules import look_in
from lehr.runs import Claim, Folder, RunFolder
from lehr.runs.scratch import scratch
from lehr.training.allocation import WorkerResources
from lehr.training.failures import describe, describe_lost_workers, is_lost_peer
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from lehr.trust import adopt, grants

RESIZE_SECONDS = 30.0
"""How often an elastic run checks whether it could have more workers. To use them it restarts from a checkpoint."""
WAIT_SECONDS = 300
"""How long a worker waits for the others before it considers them lost: longer than storage may be unavailable."""


def fit(
    job: TrainJob,
    run: RunFolder,
    shared: Mapping[str, Handle],
    resources: WorkerResources,
    work: Callable[[Plan, RunFolder, Group], object] | None = None,
) -> None:
    """Trains on a worker group, restarting it after a lost worker or node as often as `workers.retries` allows.

    Returns when the run has finished, stopped or failed; the run folder says which.

    Args:
        run: the run folder; what the workers write, they write under its claim.
        shared: the decoded or streamed rows of every split, as handles that each worker opens.
        resources: what every worker gets.
        work: what every worker does; by default it trains, and watches the run folder for a stop request.

    Raises:
        ray.train.TrainingFailedError: the worker group failed more often than that.
    """
    folder = run.folder
    with scratch(folder, on_every_node=sum(node["Alive"] for node in ray.nodes()) > 1) as place:
        config: _WorkerConfig = {
            "job": to_dict(job),
            "job_folder": str(job.folder),
            "folder": folder.uri,
            "claim": run.claim,
            "shared": shared,
            "threads": max(1, int(resources.cpus)),
            "work": work or _train,
            "grants": grants(),
        }
        trainer = partial(
            _Trainer,
            _worker,  # type: ignore[arg-type]
            train_loop_config=dict(config),
            scaling_config=ScalingConfig(  # type: ignore[call-arg]  # the types are those of Ray Train 1
                num_workers=resources.workers,  # type: ignore[arg-type]
                use_gpu=resources.gpus > 0,
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
                resources_per_worker={"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.gpus else {})},
            ),
            torch_config=_Torch(timeout_s=WAIT_SECONDS),
            run_config=RunConfig(
                name=folder.name,
                storage_path=place,
                failure_config=FailureConfig(max_failures=job.workers.retries),
                callbacks=[_LossRecorder(folder.uri, run.claim)],  # type: ignore[list-item]
            ),
        )
        _fit(trainer, RunFolder(folder), job.workers.retries)


class _Trainer(TorchTrainer):
    """Without the process that gives back what a lost controller held, where Ray ends with the job.

    It asks the dashboard's API, which such a Ray does not have: it would only fill the log with what it cannot do.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # the types are of Ray Train 1
        if os.environ.get("RAY_ADDRESS"):
            return found
        return [each for each in found if not isinstance(each, PlacementGroupCleanerCallback)]


def _fit(trainer: Callable[[], TorchTrainer], run: RunFolder, retries: int) -> None:
    """Trains to the end. Ray Train restarts workers; where the process that does so is lost, this starts it again."""
    lost = 0
    while lost <= retries:
        try:
            trainer().fit()
            if run.outcome() or run.failure() or not run.lost():
                return
            # The workers saved and left, since their machine is about to be taken away: others go on.
        except RayActorError:
            if run.outcome() or run.failure():
                return
            run.note_loss("the process that watches the workers was lost (it was killed, or it crashed)")
            _free_resources()
            lost += 1
    raise LehrError(f"the process that watches the workers was lost {retries + 1} times")


def _free_resources() -> None:
    """Gives back what a lost worker group held on the job's own Ray; on a cluster, Ray Train's cleaner does that."""
    if os.environ.get("RAY_ADDRESS"):
        return
    for name, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


class _WorkerConfig(TypedDict):
    """The arguments of every worker, which Ray Train pickles."""

    job: dict[str, Any]
    job_folder: str
    folder: str
    claim: Claim | None
    shared: Mapping[str, Handle]
    threads: int
    work: Callable[[Plan, RunFolder, Group], object]
    grants: tuple[str, ...]


class _WorkerGroup(Protocol):
    """What is used of Ray Train's worker group."""

    def execute(self, function: Callable[[], None]) -> object: ...


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's own backend, on the network that Ray uses."""

    def on_start(self, worker_group: _WorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute(use_rays_network)
        super().on_start(worker_group, backend_config)


class _Torch(TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def use_rays_network() -> None:
    """Makes Gloo use the interface of this node's address in Ray, unless `GLOO_SOCKET_IFNAME` names another.

    By default Gloo uses the address that the machine's host name resolves to. On many machines that is 127.0.0.1 or
    127.0.1.1, and workers on two of them would each try to reach the other on their own machine.

    NCCL searches for an interface and tries loopback last, so its interface is set only where Ray itself uses loopback.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            if ipaddress.ip_address(address).is_loopback:
                os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


class _LossRecorder(UserCallback):
    """Writes to the run folder why a worker group ended, for the next one to report. Runs in Train's controller."""

    def __init__(self, folder: str, claim: Claim | None) -> None:
        self.folder, self.claim = folder, claim

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        run = RunFolder(Folder.at(self.folder, known=True), self.claim)
        if not run.failure():
            run.note_loss(describe_lost_workers(worker_exceptions))


def _worker(config: _WorkerConfig) -> None:
    """What each worker runs."""
    look_in(config["job_folder"])
    adopt(config["grants"])
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    run = RunFolder.open(Folder.at(config["folder"], known=True), config["claim"])
    if run.failure():
        return  # an earlier attempt failed for a reason that another one would meet again
    try:
        job = from_dict(config["job"])
        assert isinstance(job, TrainJob)
        images: dict[str, Any] = {name: handle.open() for name, handle in config["shared"].items()}
        config["work"](Plan.make(job, splits(job, images)), run, group)
    except RunLost:
        return  # ours is no longer the driver that writes this run, and notices it too
    except Exception as error:
        if not is_lost_peer(error):
            with suppress(LehrError):  # where nothing can be written, raising the error has to do
                run.fail(describe(error))
        raise


def _train(plan: Plan, run: RunFolder, group: Group) -> None:
    train(plan, run, group, stop_watcher(run), must_leave=preemption_notice)


def preemption_notice() -> str | None:
    """Says which workers are about to lose their machine, once Ray gives notice of a drained or preempted node.

    Ray Train tells every worker of the group. Its public `get_preemption_info` synchronises all of them, which would
    cost as much as a step.
    """
    notice = get_train_context().preemption_context.preemption_info
    if notice is None:
        return None
    workers = ", ".join(f"worker {rank}" for rank in notice.preempted_ranks)
    return f"the machine of {workers} is about to be taken away"


def stop_watcher(run: RunFolder) -> Callable[[], str | None]:
    """A function that returns the reason of a stop request in the run folder. It polls remote storage every 3 s."""
    every = 0.0 if run.folder.is_local else 3.0
    last = float("-inf")

    def should_stop() -> str | None:
        nonlocal last
        if time.monotonic() - last < every:
            return None
        last = time.monotonic()
        return run.stop_requested()

    return should_stop
