"""Inspects a cluster for a job: one Ray task on every node, and one that builds the job's model."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypedDict

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lehr.errors import LehrError
from lehr.job import Job, Training, from_dict
from lehr.job.sources import source_form
from lehr.own_modules import look_in
from lehr.processes import this_machine
from lehr.ray_cluster.growth import limits
from lehr.runs import Folder
from lehr.submission.backend import Request
from lehr.submission.check import Inspection, NodeInspection, findings, training_of
from lehr.submission.check_result import CheckResult
from lehr.training.failures import last_line

ANSWER_SECONDS = 45.0  # a node that does not answer for so long is left out; a healthy one takes a second or two
PACKAGES = ("lehr", "ray", "torch")
WRITTEN = b"written by lehr check\n"


class RayNode(TypedDict):
    """What is read of `ray.nodes()`."""

    NodeID: str
    NodeManagerHostname: str
    Alive: bool
    Resources: Mapping[str, float]


def check_cluster(request: Request) -> CheckResult:
    """What the cluster that this process runs on lacks for the job."""
    started = time.monotonic()
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        job = request.load()
        found = findings(job, request, inspect_cluster(job, request))
    finally:
        ray.shutdown()
    return CheckResult(found, time.monotonic() - started)


def inspect_cluster(job: Job, request: Request) -> Inspection:
    """The connected cluster as it is for a job. This needs no free CPU, so it works on a busy cluster too."""
    nodes: list[RayNode] = [node for node in ray.nodes() if node["Alive"]]
    building = _on(ray.remote(num_cpus=0, max_retries=0)(try_model), _largest(nodes)).remote(request)
    # Every node looks for the file that this process writes, and writes one itself.
    marker = f"lehr-check-{secrets.token_hex(6)}"
    with suppress(LehrError):
        Folder.at(job.storage, patience=0).write(marker, WRITTEN)
    task = ray.remote(num_cpus=0, max_retries=0)(inspect_node)
    asked = {node["NodeID"]: _on(task, node).remote(request, marker) for node in nodes}
    ray.wait([*asked.values(), building], num_returns=len(asked) + 1, timeout=ANSWER_SECONDS)
    answers: list[NodeInspection] = []
    unresponsive: list[str] = []
    for node in nodes:
        resources, name = node["Resources"], f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
        try:
            answer: NodeInspection = ray.get(asked[node["NodeID"]], timeout=0)
            answers.append(replace(answer, name=name, cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0)))
        except (ray.exceptions.RayError, TimeoutError):
            unresponsive.append(name)
    with suppress(LehrError):  # that the storage cannot be written is a finding already
        Folder.at(job.storage, patience=0).delete(marker)
    try:
        model_error: str = ray.get(building, timeout=0)
    except (ray.exceptions.RayError, TimeoutError) as error:
        model_error = _not_built(error)
    return Inspection(answers, unresponsive, limits=limits(), model_error=model_error)


def inspect_node(request: Request, marker: str) -> NodeInspection:
    """What only this node can tell; its name and resources are left to the caller."""
    job = request.load()
    storage_error, sees_marker = _try_storage(job.storage, marker)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return NodeInspection(
        machine=this_machine(),
        versions=versions,
        storage_error=storage_error,
        sees_marker=sees_marker,
        data_errors=_data_errors(job),
    )


def try_model(request: Request) -> str:
    """Opens the job's data and builds its model; why that failed, or nothing."""
    from lehr.data.load import OpenedSources
    from lehr.data.sources import returns_dataset
    from lehr.kinds import check
    from lehr.models import build, check_outputs
    from lehr.training.rehearsal import plan_of_noise

    look_in(request.folder)
    job = request.given()
    training = training_of(job)
    try:
        check(job)
        if training is None or returns_dataset(training.data):
            return ""
        opened = OpenedSources(job if isinstance(job, Training) else _as_train_job(training))  # type: ignore[arg-type]
        if opened.kind in ("boxes", "captions"):
            plan_of_noise(opened.job, opened).build_model()
            return ""
        height, width, channels = opened.likely_shape
        classes, model = len(opened.main.classes), training.model
        built = build(model.name, channels, classes, model.options, 0)
        import torch

        shape = (channels, height, width)
        check_outputs(built.eval(), model.name, torch.zeros(2, *shape), classes)
    except LehrError as error:
        return str(error)
    except Exception as error:
        return _not_built(error)
    return ""


def _not_built(error: BaseException) -> str:
    return f"the job's model could not be built on a worker: {last_line(error)}"


def _as_train_job(training: Training) -> Job:
    return from_dict({"kind": "train", **training.model_dump(mode="json")})


def _try_storage(storage: str, marker: str) -> tuple[str, bool | None]:
    """Why the storage cannot be written here, and whether the marker is there."""
    try:
        folder = Folder.at(storage, patience=0)
        own = f"{marker}-{secrets.token_hex(4)}"
        folder.write(own, WRITTEN)
        same, seen = folder.read(own) == WRITTEN, folder.exists(marker)
        folder.delete(own)
    except (LehrError, FileNotFoundError) as error:
        return str(error), None
    return ("", seen) if same else ("what is read back is not what was written", None)


def _data_errors(job: Job) -> Mapping[str, str]:
    """By field of the job, why what it names cannot be read here."""
    from pyarrow.fs import FileType

    from lehr.data.sources.base import file_system
    from lehr.data.sources.shards import is_pattern
    from lehr.submission.submit import data_paths

    training = training_of(job)
    form = source_form(training.data.source) if training else None
    if form and form.downloads:
        return {}
    found = {}
    for name, path in data_paths(job).items():
        if is_pattern(path):
            continue
        try:
            filesystem, inner = file_system(path)
            if filesystem.get_file_info(inner).type == FileType.NotFound:
                found[name] = f"{path} does not exist there"
        except (OSError, ValueError) as error:
            found[name] = last_line(error)
    return found


def _largest(nodes: Sequence[RayNode]) -> RayNode:
    """The node where a worker would most likely be placed."""
    return max(nodes, key=lambda node: (node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)))


def _on(task: Any, node: RayNode) -> Any:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
