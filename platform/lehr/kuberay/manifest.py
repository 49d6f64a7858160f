"""A job and a cluster profile become two Kubernetes objects: a ConfigMap with the job, and a RayJob that runs it.

Pure functions. The fields are those of KubeRay 1.7 (`ray.io/v1`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Collection, Sequence
from importlib.metadata import version
from typing import Any

import yaml

from lehr.job import Job, WorkersSection, to_dict
from lehr.job.base import path_fields
from lehr.job.text import show
from lehr.kuberay.cluster_spec import (
    JOB_FOLDER,
    LABELS,
    MODULES_FOLDER,
    Manifest,
    WorkerPods,
    cluster_spec,
    submitter,
)
from lehr.kuberay.modules import INLINE, Modules, own_modules
from lehr.kuberay.profile import Profile

RUN, STORAGE = "lehr/run", "lehr/storage"
"""Annotations of everything that belongs to a run: its name, and the storage that its folder is in."""
JOB = "lehr/job"
"""Annotation of a RayJob: the job as submitted, as JSON, so that another one under this name is told from it."""
STOPPED = "lehr/stopped"
"""Annotation of a RayJob that a person stopped."""
LONGEST_JOB = 100 << 10  # bytes of that annotation; Kubernetes allows 256 KiB for all of them
LONGEST_NAME = 47  # KubeRay appends to it for the cluster and its pods (MaxRayJobNameLength)


def manifest(
    job: Job,
    profile: Profile,
    modules: str | Modules | None = None,
    ray_version: str | None = None,
    trust: Sequence[str] = (),
    fresh: str = "",
) -> list[Manifest]:
    """The objects that run a job on a cluster: a ConfigMap and a RayJob of the same name.

    Args:
        modules: address of the archive of the user's own modules (`Modules.uri`), if there is one; or the modules,
            which then travel in the ConfigMap.
        ray_version: Ray's version in the image, by default the one installed here.
        trust: runs whose code may run too, and digests of such code; see `lehr.result.trust_all`.
        fresh: starts the run over, once for each text: a retry of the same RayJob goes on.

    Raises:
        JobError: the job cannot run on this cluster; the sentence says what is allowed.
    """
    storage = storage_of(job, profile)
    _check_paths(job, profile)
    pods = worker_pods(job, profile)
    name = kubernetes_name(job.run_name)
    metadata: Manifest = {
        "name": name,
        "namespace": profile.namespace,
        "labels": dict(LABELS),
        "annotations": {RUN: job.run_name, STORAGE: storage},
    }
    config: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {"job.yaml": _yaml(resolved(job, storage, pods))},
    }
    queue = {"kueue.x-k8s.io/queue-name": profile.queue, "kueue.x-k8s.io/priority-class": profile.priority}
    labels = {**LABELS, **{key: value for key, value in queue.items() if value}}
    options = [word for each in trust for word in ("--trust", each)] + (["--fresh-once", fresh] if fresh else [])
    inline = modules.inline() if isinstance(modules, Modules) else {}
    spec: Manifest = {
        "submissionMode": "K8sJobMode",
        "entrypoint": shlex.join(["lehr", "on-cluster", f"{JOB_FOLDER}/job.yaml", *options]),
        "backoffLimit": profile.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": profile.keep,
        "submitterPodTemplate": submitter(profile, name, inline),
        "rayClusterSpec": cluster_spec(profile, pods, name, ray_version or version("ray")),
    }
    if isinstance(modules, Modules):
        config["binaryData"] = modules.contents()
        # Kubernetes keeps the files of a ConfigMap behind links whose names begin with two dots.
        spec["runtimeEnvYAML"] = _yaml({"working_dir": MODULES_FOLDER, "excludes": ["..*"]})
    elif modules:
        spec["runtimeEnvYAML"] = _yaml({"working_dir": modules})
    if profile.start:
        spec["preRunningDeadlineSeconds"] = profile.start
    if profile.deadline:
        spec["activeDeadlineSeconds"] = profile.deadline
    described = json.dumps({**to_dict(job), "name": job.run_name, "storage": storage}, separators=(",", ":"))
    annotations = {**metadata["annotations"], **({JOB: described} if len(described) <= LONGEST_JOB else {})}
    metadata = {**metadata, "labels": labels, "annotations": annotations}
    return [config, {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}]


def prepare(
    job: Job, profile: Profile, include: Collection[str] = (), trust: Sequence[str] = (), fresh: str = ""
) -> tuple[list[Manifest], Modules | None]:
    """The manifest of a job, and the user's own modules, if there are any.

    In a bucket they must be stored (`Modules.store`) before the job starts. Beside a storage that only pods reach there
    is no such place, and they travel in the ConfigMap.

    Args:
        trust, fresh: as for `manifest`.

    Raises:
        JobError: the job cannot run on this cluster.
    """
    modules, storage = own_modules(job, include), storage_of(job, profile)
    inline = modules is not None and "://" not in storage
    if modules and inline and modules.package.nbytes > INLINE:
        raise job.error(
            "",
            f"the modules in {modules.folder} take {modules.package.nbytes >> 10} KiB, and its storage {storage} is a "
            f"volume that only pods reach; allowed: at most {INLINE >> 10} KiB, a bucket as storage, or the modules "
            "installed in the image",
        )
    where = modules if inline or modules is None else modules.uri(storage)
    return manifest(job, profile, where, trust=trust, fresh=fresh), modules


def to_yaml(objects: list[Manifest]) -> str:
    """The objects as `kubectl apply -f -` reads them."""
    return "---\n".join(_yaml(each) for each in objects)


# ── the job ───────────────────────────────────────────────────────────────────────────────────────────────────────


def kubernetes_name(run: str) -> str:
    """A run's name as Kubernetes allows it. A name that must be changed gets 8 hex digits that keep two runs apart."""
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", run.lower())).strip("-")
    name = name if name[:1].isalpha() else f"run-{name}".rstrip("-")
    if name == run and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9].rstrip('-')}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def storage_of(job: Job, profile: Profile) -> str:
    """Where the run folder goes: to the job's storage if every pod reaches it, else to the profile's.

    Raises:
        JobError: neither is a place that every pod reaches.
    """
    for storage in (job.storage, profile.storage):
        if storage and profile.reaches(storage):
            return storage
    raise job.error(
        "storage",
        f"{show(job.storage)} is a folder on this machine, and the cluster profile has no storage; "
        "allowed: s3://…, gs://…, or a folder in one of the profile's volumes",
    )


def worker_section(job: Job) -> tuple[str, WorkersSection]:
    """The dotted name of the section that describes a job's training workers, and the section."""
    for field, holder in (("workers", job), ("base.workers", getattr(job, "base", None))):
        section = getattr(holder, "workers", None)
        if isinstance(section, WorkersSection):
            return field, section
    return "workers", WorkersSection()


def worker_pods(job: Job, profile: Profile) -> WorkerPods:
    """How a job's workers become pods. With `auto`, or several trainings in a job, the profile's worker count is used.

    Raises:
        JobError: the cluster has no GPUs, or its queue does not admit elastic jobs.
    """
    field, section = worker_section(job)
    offered = profile.workers
    gpus = section.gpus or (offered.gpus if section.count == "auto" else 0.0)
    if gpus and not offered.gpu:
        raise job.error(f"{field}.gpus", f"{gpus:g} for each worker, but this cluster has no GPUs; allowed: 0")
    if isinstance(section.count, int):
        least, most = section.count, section.count
    else:
        least, most = (offered.count, offered.count) if section.count == "auto" else section.count
    if profile.queue and least != most:
        what = f"[{least}, {most}] is elastic, but Kueue admits a fixed set of pods; allowed: a number, or no queue"
        raise job.error(f"{field}.count", what)
    if field != "workers":
        fixed, most = least == most, max(most, offered.count)
        least = most if fixed else least
    per_pod = int(1 / gpus) if 0 < gpus < 1 else 1  # workers that share a GPU share a pod
    return WorkerPods(
        least=math.ceil(least / per_pod),
        most=math.ceil(most / per_pod),
        workers=per_pod,
        cpus=section.cpus or offered.cpus,
        gpus=math.ceil(gpus),
    )


def resolved(job: Job, storage: str, pods: WorkerPods) -> Manifest:
    """The job as it travels: its name, storage and workers spelt out. What it computes is untouched."""
    travelling = {**to_dict(job), "name": job.run_name, "storage": storage}
    field, section = worker_section(job)
    if field == "workers" and "workers" in travelling:
        workers = {**travelling["workers"], "cpus": pods.cpus}
        if section.count == "auto":
            workers |= {"count": pods.most * pods.workers, "gpus": section.gpus or float(pods.gpus)}
        travelling["workers"] = workers
    return travelling


def _check_paths(job: Job, profile: Profile) -> None:
    """Raises JobError for data and runs that only this machine can read."""
    for field, text in path_fields(job, runs=True):
        path = text.removeprefix("run:")
        if path.startswith(("/", "file:")) and field != ("storage",) and not profile.reaches(path):
            raise job.error(
                ".".join(map(str, field)),
                f"{show(path)} is on this machine, where no pod can read it; "
                "allowed: s3://…, gs://…, or a folder in one of the profile's volumes",
            )


# ── YAML ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and spells everything out instead of using anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(value: Manifest) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
