"""Jobs of a Ray cluster, through its Jobs API.

The requests are those of https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html and, for
packages, of `ray.job_submission.JobSubmissionClient`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import TypedDict
from urllib.parse import quote

from lehr.errors import ClusterError, JobError
from lehr.paths import PACKED
from lehr.ray_cluster.dashboard import DashboardClient, last_line
from lehr.runs.progress import ENDED
from lehr.submission.backend import Request, Status, Submission, entrypoint, refuse_secrets
from lehr.submission.check_result import CheckResult, is_result
from lehr.submission.package import Package

LONGEST_ENVIRONMENT = 100 * 1024
"""Bytes of a runtime environment. Ray passes it on as one variable, for which Linux allows 128 KiB."""
CHECK_PREFIX = "lehr-check-"
"""How the ids begin of submissions that only check the cluster."""
STATUS: Mapping[str, Status] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class RuntimeEnv(TypedDict, total=False):
    """What is read of a job's runtime environment."""

    env_vars: dict[str, str]


class JobDetails(TypedDict):
    """What is read of a job in the Jobs API. Times are in milliseconds since 1970."""

    submission_id: str | None
    status: str
    metadata: dict[str, str] | None
    runtime_env: RuntimeEnv | None
    message: str | None
    start_time: int | None
    end_time: int | None


class RayJobs:
    """The jobs of one cluster: the `Backend` of Ray clusters.

    Args:
        address: of its dashboard, as `dashboard_address` returns it.
        package: makes the working folder's package when a job is submitted.
        option: what names the cluster on the command line, where it is not the default.
    """

    def __init__(self, address: str, package: Callable[[], Package] | None = None, option: str = "") -> None:
        self.address = address
        self.option = option
        self.dashboard = DashboardClient(address)
        self.package = package
        self.uploaded: bool | None = None  # whether the last submit had to upload the package
        self.notes: list[str] = []

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        refuse_secrets(request)
        environment = request.runtime_env()
        if self.package:
            package = self.package()
            self.uploaded = self._upload(package)
            environment["working_dir"] = f"gcs://{package.name}"
            self.notes = [*package.told(), f"{package.summary}: {'' if self.uploaded else 'already '}uploaded"]
        if request.only_check:
            self._forget_checks()
            number, name = 0, f"{CHECK_PREFIX}{secrets.token_hex(6)}"
        else:
            number = after.number + 1 if after else 1
            name = submission_id(request.run, number)
        # job_name is what the dashboard shows in its column Name.
        metadata = {"job_name": request.run, "lehr_run": request.run, "lehr_number": str(number)}
        body = {
            "entrypoint": entrypoint(request),
            "submission_id": name,
            "runtime_env": environment,
            "metadata": metadata if number else {},
        }
        if len(json.dumps(environment)) > LONGEST_ENVIRONMENT:
            raise JobError(
                f"{request.source or request.run}: the job and its requirements take "
                f"{len(json.dumps(environment)) >> 10} KiB, and Ray passes on at most {LONGEST_ENVIRONMENT >> 10} KiB; "
                "leave out the hashes of other platforms, or install the requirements on the nodes"
            )
        status, text = self.dashboard.request("POST", "/api/jobs/", json.dumps(body).encode(), allowed=(400, 500))
        if status != 200 and "already exists" not in text:
            raise ClusterError(f"{self.address}: the job was refused: {last_line(text)}")
        return Submission(name, request.run, number, "pending", request=request)

    def jobs(self) -> list[Submission]:
        found = [_submission(each) for each in self._all() if each.get("submission_id")]
        return sorted((each for each in found if each.run), key=lambda each: (each.started or 0, each.number))

    def get(self, submission: Submission) -> Submission:
        return _submission(self.dashboard.call("GET", f"/api/jobs/{quote(submission.id)}"))

    def logs(self, submission: Submission) -> str:
        token = submission.request.check_token if submission.request else ""
        lines = self._log(submission).splitlines(keepends=True)
        return "".join(line for line in lines if not _of_ray(line) and not is_result(line, token))

    def check_result(self, submission: Submission) -> CheckResult | None:
        """What the check at the start of a job found; None while it is not over, or where there was none."""
        token = submission.request.check_token if submission.request else ""
        return CheckResult.read(self._log(submission), token)

    def stop(self, submission: Submission) -> None:
        self.dashboard.call("POST", f"/api/jobs/{quote(submission.id)}/stop")

    def _all(self) -> list[JobDetails]:
        found: list[JobDetails] = self.dashboard.call("GET", "/api/jobs/")
        return found

    def _log(self, submission: Submission) -> str:
        return str(self.dashboard.call("GET", f"/api/jobs/{quote(submission.id)}/logs").get("logs") or "")

    def _forget_checks(self) -> None:
        """Removes the checks that are over from the cluster's list: their clients got the result before they ended."""
        for each in self._all():
            name = each.get("submission_id") or ""
            if name.startswith(CHECK_PREFIX) and STATUS.get(each["status"]) in ENDED:
                # Another client may have removed it first.
                self.dashboard.request("DELETE", f"/api/jobs/{quote(name)}", allowed=(404, 500))

    def _upload(self, package: Package) -> bool:
        """Uploads a package; False where the cluster has it already."""
        path = f"/api/packages/gcs/{package.name}"
        if self.dashboard.request("GET", path, allowed=(404,))[0] == 200:
            return False
        status, text = self.dashboard.request("PUT", path, package.zip(f"{PACKED}/"), allowed=(413, 500))
        if status == 413 or "Maximum request body size" in text:
            raise ClusterError(package.too_large())
        if status != 200:
            raise ClusterError(f"{self.address}: the package was refused: {last_line(text)}")
        return True


def submission_id(run: str, number: int) -> str:
    """The id of a run's n-th submission. Two clients that submit at once choose the same id, and Ray accepts one."""
    return f"{run}--{number}"


def _of_ray(line: str) -> bool:
    """Whether Ray itself printed a line before the job's own output."""
    return line.startswith("Running entrypoint for job ") or bool(
        re.match(r"\[?[\d\-]+[ T][\d:,.]+\]? ?(\tINFO|INFO).*Runtime env is setting up", line)
    )


def _submission(each: JobDetails) -> Submission:
    metadata = each.get("metadata") or {}
    variables = (each.get("runtime_env") or {}).get("env_vars") or {}
    try:
        request = Request.from_environment(variables)
    except (KeyError, TypeError, ValueError):
        request = None
    number = str(metadata.get("lehr_number", ""))
    return Submission(
        id=each["submission_id"] or "",
        run=str(metadata.get("lehr_run", "")),
        number=int(number) if number.isdecimal() else 0,
        status=STATUS.get(each["status"], "pending"),
        message=each.get("message") or "",
        started=_seconds(each.get("start_time")),
        ended=_seconds(each.get("end_time")),
        request=request,
    )


def _seconds(milliseconds: float | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
