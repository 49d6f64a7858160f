"""A job of ours as the cluster tells of it: a RayJob's status in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lehr.kuberay.manifest import RUN, STORAGE
from lehr.kuberay.ray_cluster import Manifest

Status = Literal["pending", "running", "finished", "failed", "stopped"]
ENDED: tuple[Status, ...] = ("finished", "failed", "stopped")


@dataclass(frozen=True)
class ClusterJob:
    """A RayJob of ours as the cluster tells of it. Times are UTC, ISO 8601.

    Attributes:
        name: what Kubernetes calls it.
        run: name of the run folder.
        storage: where the run folder is.
        message: what the cluster says about it.
        failures: attempts that failed.
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

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, rayjob: Manifest) -> ClusterJob:
        """Reads a RayJob; the words of its status are those of KubeRay's `rayjob_types.go`."""
        meta, said = rayjob["metadata"], rayjob.get("status") or {}
        notes = meta.get("annotations") or {}
        info = said.get("rayJobInfo") or {}
        return cls(
            name=meta["name"],
            run=notes.get(RUN, meta["name"]),
            storage=notes.get(STORAGE, ""),
            status=_status(said),
            message=_message(rayjob, said),
            created=meta.get("creationTimestamp"),
            started=info.get("startTime") or said.get("startTime"),
            ended=said.get("endTime"),
            failures=said.get("failed") or 0,
        )


def _status(said: Manifest) -> Status:
    deployment, job = said.get("jobDeploymentStatus", ""), said.get("jobStatus", "")
    if deployment == "Complete":
        return "stopped" if job == "STOPPED" else "finished"
    if deployment in ("Failed", "ValidationFailed"):
        return "failed"
    return "running" if deployment == "Running" and job == "RUNNING" else "pending"


def _message(rayjob: Manifest, said: Manifest) -> str:
    deployment = said.get("jobDeploymentStatus", "")
    queue = (rayjob["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if queue and (deployment == "Suspended" or (not deployment and rayjob["spec"].get("suspend"))):
        return f"waits in the queue {queue}"
    if said.get("message"):
        return str(said["message"])
    if deployment in ("", "Initializing"):
        cluster = said.get("rayClusterStatus") or {}
        wanted, ready = cluster.get("desiredWorkerReplicas"), cluster.get("readyWorkerReplicas", 0)
        return f"starting: {ready} of {wanted} workers are ready" if wanted else "starting"
    return "starting again" if deployment == "Retrying" else ""
