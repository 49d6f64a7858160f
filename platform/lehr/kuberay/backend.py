"""KubeRay as a `Backend`: the commands treat jobs on Kubernetes like jobs on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lehr.errors import ClusterError
from lehr.job import Job
from lehr.kuberay.client import AlreadySubmitted, KubeRay, NotFound
from lehr.kuberay.jobs import ClusterJob
from lehr.kuberay.manifest import prepare, storage_of
from lehr.kuberay.modules import Modules
from lehr.kuberay.profile import Profile, load_profile, profile_file
from lehr.submission.backend import Request, Submission, refuse_secrets


class Kubernetes:
    """The jobs of the namespace that a cluster profile names.

    Args:
        profile: the profile's file, by default LEHR_PROFILE.
        job: the job that `submit` submits.
    """

    def __init__(self, profile: str | None, job: Job | None = None) -> None:
        file = profile_file(profile, "--kubernetes")
        self.profile = load_profile(file)
        self.client = KubeRay(self.profile.namespace)
        self.address = f"{self.client.address}, namespace {self.profile.namespace}"
        self.option = f"--kubernetes {file}"
        self.job = job
        self.notes: list[str] = []

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        """Creates the RayJob. Retries and the time for stopping are the profile's."""
        assert self.job is not None, "a backend that submits is made with a job"
        job = self.job.model_copy(update={"name": request.run})
        profile = self.profile.with_env(request.env)
        refuse_secrets(request)
        objects, modules = prepare(job, profile, request.include, request.trust)
        self.notes = notes(profile, modules)
        if modules:
            modules.store(storage_of(job, profile))
        try:
            found = self.client.submit(objects)
        except AlreadySubmitted as already:
            found = already.job
        return _submission(found)

    def jobs(self) -> list[Submission]:
        return [_submission(each) for each in self.client.jobs()]

    def get(self, submission: Submission) -> Submission:
        """The job in its present state. One that is gone was stopped: `stop` deletes where it reaches no run folder."""
        try:
            return _submission(self.client.status(submission.id))
        except NotFound:
            return replace(submission, status="stopped", message="deleted from the cluster")

    def logs(self, submission: Submission) -> str:
        if self.get(submission).status == "pending":
            return ""
        try:
            return "".join(self.client.logs(submission.id))
        except ClusterError:  # its pod does not exist yet, or no longer
            return ""

    def stop(self, submission: Submission) -> None:
        self.client.stop(submission.id)


def notes(profile: Profile, modules: Modules | None) -> list[str]:
    """What a user should know before a job runs on Kubernetes, one sentence each."""
    told = modules.package.told() if modules else []
    if not profile.is_pinned:
        told.append(
            f"image: {profile.image} is a tag, which may name another image tomorrow; pin the one you tested: "
            "name@sha256:… (docker inspect --format '{{index .RepoDigests 0}}' shows it)"
        )
    return told


def travels(profile: Profile) -> list[str]:
    """What goes to Kubernetes besides files, one line each, without the values of variables."""
    return [
        f"environment variables of the profile: {', '.join(sorted(profile.env)) or 'none'}; "
        f"from a Secret: {profile.secret or 'none'}",
        f"the manifest, with the job as resolved; image: {profile.image}",
    ]


def _submission(job: ClusterJob) -> Submission:
    return Submission(
        id=job.name,
        run=job.run,
        number=1,
        status=job.status,
        message=job.message,
        started=_seconds(job.started or job.created),
        ended=_seconds(job.ended),
        request=Request(job.run, {"storage": job.storage}, "", "", check_token="") if job.storage else None,
    )


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else None
