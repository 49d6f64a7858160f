"""A RayJob that lehr created, and its status in lehr's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from lehr.kuberay.manifest import JOB, RUN, STOPPED, STORAGE
from lehr.kuberay.reasons import why_waiting
from lehr.runs.progress import ENDED
from lehr.submission.backend import Status


class Metadata(TypedDict, total=False):
    """What is read of a Kubernetes object's metadata."""

    name: str
    uid: str
    resourceVersion: str
    creationTimestamp: str
    labels: dict[str, str]
    annotations: dict[str, str]


class RayJobInfo(TypedDict, total=False):
    startTime: str


class RayClusterStatus(TypedDict, total=False):
    desiredWorkerReplicas: int
    readyWorkerReplicas: int


class RayJobSpec(TypedDict, total=False):
    suspend: bool


class RayJobStatus(TypedDict, total=False):
    """What is read of a RayJob's status, as KubeRay's `rayjob_types.go` defines it."""

    jobDeploymentStatus: str
    jobStatus: str
    message: str
    startTime: str
    endTime: str
    failed: int
    rayJobInfo: RayJobInfo
    rayClusterStatus: RayClusterStatus


class RayJob(TypedDict, total=False):
    """What is read of a RayJob."""

    metadata: Metadata
    spec: RayJobSpec
    status: RayJobStatus


@dataclass(frozen=True)
class ClusterJob:
    """A RayJob that lehr created, as the cluster reports it. Times are UTC, ISO 8601.

    Attributes:
        name: what Kubernetes calls it.
        run: name of the run folder.
        storage: where the run folder is.
        message: what the cluster says about it.
        failures: attempts that failed.
        job: the job as submitted; empty where the RayJob does not say.
    """

    name: str
    run: str
    storage: str
    status: Status
    message: str = ""
    created: str | None = None
    started: str | None = None
    ended: str | None = None
    failures: int = 0
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, rayjob: RayJob) -> ClusterJob:
        """The job of a RayJob."""
        metadata, status = rayjob["metadata"], rayjob.get("status") or RayJobStatus()
        annotations = metadata.get("annotations") or {}
        info = status.get("rayJobInfo") or RayJobInfo()
        return cls(
            name=metadata["name"],
            run=annotations.get(RUN, metadata["name"]),
            storage=annotations.get(STORAGE, ""),
            status=_status(status, STOPPED in annotations),
            message=_message(rayjob, status),
            created=metadata.get("creationTimestamp"),
            started=info.get("startTime") or status.get("startTime"),
            ended=status.get("endTime"),
            failures=status.get("failed") or 0,
            job=_job(annotations.get(JOB, "")),
        )


def _job(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _status(status: RayJobStatus, stopped: bool) -> Status:
    deployment, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    if deployment == "Complete":
        return "stopped" if job == "STOPPED" or stopped else "finished"
    if deployment == "Suspended" and stopped:
        return "stopped"
    if deployment in ("Failed", "ValidationFailed"):
        return "failed"
    return "running" if deployment == "Running" and job == "RUNNING" else "pending"


def _message(rayjob: RayJob, status: RayJobStatus) -> str:
    deployment = status.get("jobDeploymentStatus", "")
    if STOPPED in (rayjob["metadata"].get("annotations") or {}):
        return "stopped"
    if deployment in ("", "Initializing", "Suspended") and (why := why_waiting(rayjob)):
        return why
    if message := status.get("message"):
        return message
    if deployment in ("", "Initializing"):
        cluster = status.get("rayClusterStatus") or RayClusterStatus()
        wanted, ready = cluster.get("desiredWorkerReplicas"), cluster.get("readyWorkerReplicas", 0)
        return f"starting: {ready} of {wanted} workers are ready" if wanted else "starting"
    return "restarting" if deployment == "Retrying" else ""
