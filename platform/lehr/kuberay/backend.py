"""Jobs on Kubernetes as the other commands see jobs: KubeRay behind the same face as a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from lehr.job import Job
from lehr.kuberay import (
    AlreadyThere,
    ClusterError,
    ClusterJob,
    KubeRay,
    load_profile,
    prepare,
    storage_of,
)
from lehr.kuberay.client import NotThere
from lehr.submission.backend import Request, Submission


class Kubernetes:
    """The jobs of the namespace that a cluster profile names.

    Args:
        profile: the profile's file, by default LEHR_PROFILE.
        job: what `submit` sends.
    """

    def __init__(self, profile: str | None, job: Job | None = None, changes: Sequence[str] = ()) -> None:
        file = profile or os.environ.get("LEHR_PROFILE")
        if not file:
            raise ClusterError("which Kubernetes cluster? name its profile with --kubernetes FILE or LEHR_PROFILE")
        self.profile = load_profile(file, changes)
        self.client = KubeRay(self.profile.namespace)
        self.address = f"{self.client.address}, namespace {self.profile.namespace}"
        self.job = job

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        """Creates the RayJob; the profile says retries and how long a stop may take."""
        assert self.job is not None, "made to send a job"
        job = self.job.model_copy(update={"name": request.run})
        objects, modules = prepare(job, self.profile)
        if modules:
            modules.store(storage_of(job, self.profile))
        try:
            found = self.client.submit(objects)
        except AlreadyThere as there:
            found = there.job
        return _submission(found)

    def jobs(self) -> list[Submission]:
        return [_submission(each) for each in self.client.jobs()]

    def get(self, submission: Submission) -> Submission:
        """The job as it is now. One that is gone was stopped: a stop that does not reach the run folder deletes."""
        try:
            return _submission(self.client.status(submission.id))
        except NotThere:
            return replace(submission, status="stopped", message="deleted from the cluster")

    def logs(self, submission: Submission) -> str:
        if self.get(submission).status == "pending":
            return ""
        try:
            return "".join(self.client.logs(submission.id))
        except ClusterError:  # its pod is not there yet, or no longer
            return ""

    def stop(self, submission: Submission) -> None:
        self.client.stop(submission.id)


def _submission(job: ClusterJob) -> Submission:
    return Submission(
        id=job.name,
        run=job.run,
        number=1,
        status=job.status,
        message=job.message,
        started=_seconds(job.started or job.created),
        ended=_seconds(job.ended),
        request=Request(job.run, {"storage": job.storage}, "", "") if job.storage else None,
    )


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else None
