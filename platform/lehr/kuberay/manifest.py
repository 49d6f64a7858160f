"""From a job and a cluster profile to what Kubernetes is told: a ConfigMap with the job, and a RayJob that runs it.

Pure functions. The fields are those of KubeRay 1.7 (`ray.io/v1`).
"""

from __future__ import annotations

import hashlib
import math
import re
from importlib import metadata
from typing import Any

import yaml

from lehr.job import Job, WorkersSection, to_dict
from lehr.job.sections import LOCAL_PATH
from lehr.job.text import show
from lehr.kuberay.modules import Modules, own_modules
from lehr.kuberay.profile import Profile
from lehr.kuberay.ray_cluster import JOB_FOLDER, OURS, Manifest, Pods, ray_cluster, submitter

RUN, STORAGE = "lehr/run", "lehr/storage"
"""Annotations of everything that belongs to a run: its name, and the storage that its folder is in."""
LONGEST_NAME = 47  # KubeRay adds to it for the cluster and its pods (MaxRayJobNameLength)


def manifest(job: Job, profile: Profile, modules: str | None = None, ray_version: str | None = None) -> list[Manifest]:
    """The objects that run a job on a cluster: a ConfigMap and a RayJob of the same name.

    Args:
        modules: URI of the archive of the user's own modules (`Modules.uri`), if there is one.
        ray_version: Ray's version in the image. By default the one installed here.

    Raises:
        JobError: the job cannot run on this cluster; the sentence says what is allowed.
    """
    storage = storage_of(job, profile)
    _check_paths(job, profile)
    pods = pods_of(job, profile)
    name = kubernetes_name(job.run_name)
    meta: Manifest = {
        "name": name,
        "namespace": profile.namespace,
        "labels": dict(OURS),
        "annotations": {RUN: job.run_name, STORAGE: storage},
    }
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "immutable": True,
        "data": {"job.yaml": _yaml(resolved(job, storage, pods))},
    }
    queue = {"kueue.x-k8s.io/queue-name": profile.queue, "kueue.x-k8s.io/priority-class": profile.priority}
    labels = {**OURS, **{key: value for key, value in queue.items() if value}}
    spec: Manifest = {
        "submissionMode": "K8sJobMode",
        "entrypoint": f"lehr on-cluster {JOB_FOLDER}/job.yaml",
        "backoffLimit": profile.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": profile.keep,
        "submitterPodTemplate": submitter(profile),
        "rayClusterSpec": ray_cluster(profile, pods, name, ray_version or metadata.version("ray")),
    }
    if modules:
        spec["runtimeEnvYAML"] = _yaml({"working_dir": modules})
    if profile.deadline:
        spec["activeDeadlineSeconds"] = profile.deadline
    return [config, {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {**meta, "labels": labels}, "spec": spec}]


def prepare(job: Job, profile: Profile) -> tuple[list[Manifest], Modules | None]:
    """The manifest of a job, and the modules that must be in its storage (`Modules.store`) before it starts.

    Raises:
        JobError: the job cannot run on this cluster.
    """
    modules, storage = own_modules(job), storage_of(job, profile)
    if modules and "://" not in storage:
        raise job.error(
            "",
            f"the job uses modules of {modules.folder}, and its storage {storage} is a volume that only pods reach; "
            "allowed: a bucket as storage, or the modules installed in the image",
        )
    return manifest(job, profile, modules.uri(storage) if modules else None), modules


def to_yaml(objects: list[Manifest]) -> str:
    """The objects as `kubectl apply -f -` takes them."""
    return "---\n".join(_yaml(each) for each in objects)


# ── the job ───────────────────────────────────────────────────────────────────────────────────────────────────────


def kubernetes_name(run: str) -> str:
    """A run's name as Kubernetes allows it; where that changes it, 8 hex digits keep two runs apart."""
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", run.lower())).strip("-")
    name = name if name[:1].isalpha() else f"run-{name}".rstrip("-")
    if name == run and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9].rstrip('-')}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def storage_of(job: Job, profile: Profile) -> str:
    """Where the run folder goes: the job's storage if every pod reaches it, else the profile's.

    Raises:
        JobError: neither is reached by every pod.
    """
    for storage in (job.storage, profile.storage):
        if storage and profile.reaches(storage):
            return storage
    raise job.error(
        "storage",
        f"{show(job.storage)} is a folder of this machine, and the cluster profile names no other; "
        "allowed: s3://…, gs://…, or a folder in one of the profile's volumes",
    )


def worker_section(job: Job) -> tuple[str, WorkersSection]:
    """Where a job says its training workers, as a dotted field, and what it says."""
    for field, holder in (("workers", job), ("base.workers", getattr(job, "base", None))):
        section = getattr(holder, "workers", None)
        if isinstance(section, WorkersSection):
            return field, section
    return "workers", WorkersSection()


def pods_of(job: Job, profile: Profile) -> Pods:
    """How a job's workers become pods. `auto`, and jobs of several trainings, take as many workers as the profile has.

    Raises:
        JobError: the cluster has no GPUs, or its queue admits no elastic jobs.
    """
    field, section = worker_section(job)
    gives = profile.workers
    automatic = section.count == "auto"
    gpus = section.gpus or (gives.gpus if automatic else 0.0)
    if gpus and not gives.gpu:
        raise job.error(f"{field}.gpus", f"{gpus:g} for each worker, and this cluster has no GPUs; allowed: 0")
    if isinstance(section.count, int):
        least, most = section.count, section.count
    else:
        least, most = (gives.count, gives.count) if section.count == "auto" else section.count
    if profile.queue and least != most:
        what = f"[{least}, {most}] is elastic, and Kueue admits a fixed set of pods; allowed: a number, or no queue"
        raise job.error(f"{field}.count", what)
    if field != "workers":
        fixed, most = least == most, max(most, gives.count)
        least = most if fixed else least
    together = int(1 / gpus) if 0 < gpus < 1 else 1
    return Pods(
        least=math.ceil(least / together),
        most=math.ceil(most / together),
        workers=together,
        cpus=section.cpus or gives.cpus,
        gpus=math.ceil(gpus),
    )


def resolved(job: Job, storage: str, pods: Pods) -> Manifest:
    """The job as it travels: its name, storage and workers spelt out. What it computes is untouched."""
    said = {**to_dict(job), "name": job.run_name, "storage": storage}
    field, section = worker_section(job)
    if field == "workers" and "workers" in said:
        workers = {**said["workers"], "cpus": pods.cpus}
        if section.count == "auto":
            workers |= {"count": pods.most * pods.workers, "gpus": section.gpus or float(pods.gpus)}
        said["workers"] = workers
    return said


def _check_paths(job: Job, profile: Profile) -> None:
    """Raises JobError for data that lie on this machine only."""
    for field, path in _paths(job):
        if field != "storage" and not profile.reaches(path):
            raise job.error(
                field,
                f"{show(path)} is on this machine, where no pod can read it; "
                "allowed: s3://…, gs://…, or a folder in one of the profile's volumes",
            )


def _paths(section: Any, at: str = "") -> list[tuple[str, str]]:
    """The absolute paths in a job, those of runs (`run:/…`) included, by dotted field."""
    found = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if hasattr(type(value), "model_fields"):
            found += _paths(value, f"{at}{name}.")
        elif isinstance(value, str) and (LOCAL_PATH in info.metadata or value.startswith("run:")):
            path = value.removeprefix("run:")
            found += [(at + name, path)] if path.startswith(("/", "file:")) else []
    return found


# ── in writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and everything spelt out: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(value: Manifest) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
