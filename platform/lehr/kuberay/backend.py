"""KubeRay as a `Backend`: the commands treat jobs on Kubernetes like jobs on a Ray cluster."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from lehr.errors import ClusterError
from lehr.job import Job
from lehr.kuberay.client import AlreadySubmitted, KubeRay, NotFound
from lehr.kuberay.cluster_spec import Manifest
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
        retries, grace: instead of the profile's.
    """

    def __init__(
        self, profile: str | None, job: Job | None = None, *, retries: int | None = None, grace: int | None = None
    ) -> None:
        file = profile_file(profile, "--kubernetes")
        self.profile = load_profile(file)
        self.client = KubeRay(self.profile.namespace)
        self.address = f"{self.client.address}, namespace {self.profile.namespace}"
        self.option = f"--kubernetes {file}"
        self.job, self.retries, self.grace = job, retries, grace
        self.notes: list[str] = []

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        """Creates the RayJob. Retries and the time for stopping are the profile's, or what the command line says."""
        objects, profile, modules = self.objects(request)
        refuse_secrets(request)
        self.notes = notes(profile, modules)
        if modules and "://" in (storage := storage_of(self._job(request), profile)):
            modules.store(storage)
        try:
            found = self.client.submit(objects)
        except AlreadySubmitted as already:
            found = already.job
        return self._submission(found)

    def objects(self, request: Request) -> tuple[list[Manifest], Profile, Modules | None]:
        """What would be created for a request, the profile with its changes, and the user's own modules."""
        profile = self.profile.with_env(request.env)
        given = {name: value for name, value in (("retries", self.retries), ("grace", self.grace)) if value is not None}
        profile = profile.model_copy(update=given)
        fresh = request.check_token if request.fresh else ""
        objects, modules = prepare(self._job(request), profile, request.include, request.trust, fresh)
        return objects, profile, modules

    def resume(self, submission: Submission) -> Submission:
        """Submits a job that ended once more, as it was."""
        try:
            return self._submission(self.client.again(submission.id))
        except AlreadySubmitted as already:
            return self._submission(already.job)

    def _job(self, request: Request) -> Job:
        assert self.job is not None, "a backend that submits is made with a job"
        return self.job.model_copy(update={"name": request.run})

    def jobs(self) -> list[Submission]:
        return [self._submission(each) for each in self.client.jobs()]

    def get(self, submission: Submission) -> Submission:
        """The job in its present state, and what Kubernetes knows of its pods. One that is gone was deleted."""
        try:
            found = self._submission(self.client.status(submission.id))
            return replace(found, why=self.client.why(submission.id) or found.why)
        except NotFound:
            return replace(submission, status="stopped", message="deleted from the cluster", why="")

    def logs(self, submission: Submission) -> str:
        try:
            return of_job("".join(self.client.logs(submission.id)))
        except ClusterError:  # its pod does not exist yet, or no longer
            return ""

    def stop(self, submission: Submission) -> None:
        self.client.stop(submission.id)

    def _submission(self, job: ClusterJob) -> Submission:
        known = dict(job.job) or ({"storage": job.storage} if job.storage else None)
        if known is not None and job.storage:
            known["storage"] = job.storage
        return Submission(
            id=job.name,
            run=job.run,
            number=1,
            status=job.status,
            message=job.message,
            started=_seconds(job.started or job.created),
            ended=_seconds(job.ended),
            request=Request(job.run, known, "", "", stop_wait=self.profile.grace, check_token="") if known else None,
            why=_why_failed(job.message) if job.status == "failed" else "",
        )


def _why_failed(message: str) -> str:
    """What KubeRay says of a job's end; empty where it only repeats the end of the job's own log."""
    return "" if "entrypoint command failed" in message else message.partition("\n")[0]


def of_job(text: str) -> str:
    """What a job printed: the submitter's log without the lines of Ray's own command, and without colours.

    Where a job failed, Ray's command ends with the last lines once more.
    """
    plain = _REPEATED.split(re.sub(r"\x1b\[[0-9;]*m", "", text))[0]
    return "".join(line for line in plain.splitlines(keepends=True) if not _OF_RAY.match(line))


_REPEATED = re.compile(r"^[^\n]*cli\.py:\d+ -- Status message: Job entrypoint command failed", re.MULTILINE)
_OF_RAY = re.compile(
    r"\s*-{5,}\s*$"  # the rules around its announcements
    r"|[\d-]+ [\d:,]+\s+\w+ \w+\.py:\d+ -- "  # 2030-01-02 03:04:05,678 INFO cli.py:41 -- Job submission server …
    r"|\w+ cli\.py:\d+ -- "
    r"|Job '[^']+' (submitted successfully|succeeded|failed|was stopped)\s*$"
    r"|Running entrypoint for job "
)


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


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else None
