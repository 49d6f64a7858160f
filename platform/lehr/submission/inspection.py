"""Looks a cluster over for a job: one Ray task on every node, and one that builds the job's model."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lehr.errors import LehrError
from lehr.job import Job, Training, from_dict
from lehr.paths import add_to_path
from lehr.runs import Folder
from lehr.runs.lease import this_machine
from lehr.submission.backend import Request
from lehr.submission.check import CHECKED, Facts, Node, findings, needs_dashboard, training_of

ANSWER_SECONDS = 45.0  # a node that is silent for so long is left out; a sound one takes a second or two
PACKAGES = ("lehr", "ray", "torch")
WRITTEN = b"written by lehr check\n"


def inspect_cluster(job: Job, request: Request) -> bool:
    """Prints what the cluster lacks for the job, and says whether the job may start."""
    started = time.monotonic()
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        found = findings(job, request, gather(job, request))
        verdict = "nothing found" if not found else f"{len(found)} finding{'s' if len(found) > 1 else ''}"
        for finding in found:
            print(f"{finding.level}: {finding}", flush=True)
        # Last: who waits for it has them all.
        print(f"{CHECKED}{time.monotonic() - started:.1f} s: {verdict}.", flush=True)
    finally:
        ray.shutdown()
    return not any(finding.level == "refused" for finding in found)


def gather(job: Job, request: Request) -> Facts:
    """What the connected cluster is like, for a job. Needs no free CPU: it looks over a busy cluster too."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    building = _on(ray.remote(num_cpus=0, max_retries=0)(try_model), _largest(nodes)).remote(request)
    # Every node looks for what this process writes, and writes something itself.
    marker = f"lehr-check-{secrets.token_hex(6)}"
    with suppress(LehrError):
        Folder.at(job.storage, patience=0).write(marker, WRITTEN)
    look = ray.remote(num_cpus=0, max_retries=0)(look_here)
    asked = {node["NodeID"]: _on(look, node).remote(request, marker) for node in nodes}
    ray.wait([*asked.values(), building], num_returns=len(asked) + 1, timeout=ANSWER_SECONDS)
    answers: list[Node] = []
    silent: list[str] = []
    for node in nodes:
        resources, name = node["Resources"], f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
        try:
            said = ray.get(asked[node["NodeID"]], timeout=0)
            answers.append(Node(name=name, cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0), **said))
        except (ray.exceptions.RayError, TimeoutError):
            silent.append(name)
    _tidy(job, marker)
    try:
        model = ray.get(building, timeout=0)
    except (ray.exceptions.RayError, TimeoutError) as error:
        model = f"the job's model could not be built on a worker: {_first_line(error)}"
    return Facts(
        nodes=answers,
        silent=silent,
        limits=_limits(),
        dashboard=not needs_dashboard(job) or _dashboard_answers(),
        model=model,
    )


def look_here(request: Request, marker: str) -> dict[str, Any]:
    """What this node finds; the fields of `Node` that only it can know."""
    job = _job(request)
    problem, seen = _try_storage(job.storage, marker)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "machine": this_machine(),
        "versions": versions,
        "storage": problem,
        "marker": seen,
        "data": _unreadable(job),
    }


def try_model(request: Request) -> str:
    """Opens the job's data and builds its model; why that failed, or nothing."""
    from lehr.data.load import OpenedSources
    from lehr.data.sources import returns_dataset
    from lehr.kinds import check
    from lehr.models import build, check_outputs

    job = _job(request)
    training = training_of(job)
    try:
        check(job)
        if training is None or returns_dataset(training.data):
            return ""
        opened = OpenedSources(job if isinstance(job, Training) else _as_train_job(training))  # type: ignore[arg-type]
        channels, classes, model = opened.shape[2], len(opened.main.classes), training.model
        built = build(model.name, channels, classes, model.options, 0)
        import torch

        shape = (channels, *opened.shape[:2])
        check_outputs(built.eval(), model.name, torch.zeros(2, *shape), classes)
    except LehrError as error:
        return str(error)
    except Exception as error:
        return f"the job's model could not be built on a worker: {_first_line(error)}"
    return ""


def _as_train_job(training: Training) -> Job:
    return from_dict({"kind": "train", **training.model_dump(mode="json")})


def _job(request: Request) -> Job:
    add_to_path(request.folder)
    return request.load()


def _try_storage(storage: str, marker: str) -> tuple[str, bool | None]:
    """Why the storage cannot be written here, and whether the marker is there."""
    try:
        folder = Folder.at(storage, patience=0)
        mine = f"{marker}-{secrets.token_hex(4)}"
        folder.write(mine, WRITTEN)
        same, seen = folder.read(mine) == WRITTEN, folder.exists(marker)
        folder.delete(mine)
    except (LehrError, FileNotFoundError) as error:
        return str(error), None
    return ("", seen) if same else ("what was written is not what is read", None)


def _tidy(job: Job, marker: str) -> None:
    with suppress(LehrError):  # that it cannot be written is a finding already
        Folder.at(job.storage, patience=0).delete(marker)


def _unreadable(job: Job) -> Mapping[str, str]:
    """By field of the job, why what it names cannot be read here."""
    from pyarrow.fs import FileType

    from lehr.data.sources.base import file_system
    from lehr.submission.submit import data_paths

    training = training_of(job)
    if training and training.data.source.startswith("torchvision:"):
        return {}  # downloaded where it is needed
    found = {}
    for name, path in data_paths(job).items():
        try:
            filesystem, inner = file_system(path)
            if filesystem.get_file_info(inner).type == FileType.NotFound:
                found[name] = f"{path} does not exist there"
        except (OSError, ValueError) as error:
            found[name] = _first_line(error)
    return found


def _limits() -> dict[str, float]:
    """What the cluster can grow to, by resource; empty where it does not grow."""
    from ray._private.state import state

    return dict(state.get_max_resources_from_cluster_config() or {})


def _dashboard_answers() -> bool:
    from ray.util.state import list_nodes

    try:
        list_nodes(limit=1, timeout=3)
        return True
    except Exception:  # whatever it is, the search would meet it too
        return False


def _largest(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The node where a worker would most likely be put."""
    return max(nodes, key=lambda node: (node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)))


def _on(task: Any, node: dict[str, Any]) -> Any:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
