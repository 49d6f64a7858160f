"""A Ray cluster through its Jobs REST API, without importing Ray: a command answers in a fraction of the time.

The requests are those of https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html and, for
packages, of `ray.job_submission.JobSubmissionClient`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from lehr.errors import LehrError
from lehr.submission.backend import ENDED, ENTRYPOINT, Request, Status, Submission
from lehr.submission.package import Package

TIMEOUT_SECONDS = 30.0
CHECK = "lehr-check-"
"""How the ids of submissions begin that only look the cluster over."""
STATUS: Mapping[str, Status] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class ClusterError(LehrError):
    """The cluster cannot be reached, or refuses."""


class RayJobs:
    """The jobs of one cluster.

    Args:
        address: of its dashboard, `http://host:8265`; as `dashboard_address` gives it.
        package: makes the working folder's package when a job is sent.
    """

    def __init__(self, address: str, package: Callable[[], Package] | None = None) -> None:
        self.address = address
        self.package = package
        self.uploaded: bool | None = None  # whether the last submit had to send the package

    def version(self) -> str:
        """Ray's version on the cluster."""
        return str(self._json("GET", "/api/version")["ray_version"])

    def session(self) -> str:
        """Ray's name of what the cluster is since it was started; its files on a node lie in a folder of that name."""
        return str(self._json("GET", "/api/version")["session_name"])

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        environment = request.runtime_env()
        if self.package:
            package = self.package()
            self.uploaded = self._send(package)
            environment["working_dir"] = f"gcs://{package.name}"
        if request.only_check:
            self._forget_checks()
            number, name = 0, f"{CHECK}{secrets.token_hex(6)}"
        else:
            number = after.number + 1 if after else 1
            name = submission_id(request.run, number)
        # job_name is what the dashboard shows in its column Name.
        metadata = {"job_name": request.run, "lehr_run": request.run, "lehr_number": str(number)}
        body = {
            "entrypoint": ENTRYPOINT,
            "submission_id": name,
            "runtime_env": environment,
            "metadata": metadata if number else {},
        }
        status, text = self._ask("POST", "/api/jobs/", json.dumps(body).encode(), allowed=(400, 500))
        if status != 200 and "already exists" not in text:
            raise ClusterError(f"{self.address}: the job was refused: {_last_line(text)}")
        return Submission(name, request.run, number, "pending", request=request)

    def jobs(self) -> list[Submission]:
        found = [_submission(each) for each in self._json("GET", "/api/jobs/") if each.get("submission_id")]
        return sorted((each for each in found if each.run), key=lambda each: (each.started or 0, each.number))

    def get(self, submission: Submission) -> Submission:
        return _submission(self._json("GET", f"/api/jobs/{quote(submission.id)}"))

    def logs(self, submission: Submission) -> str:
        answer = self._json("GET", f"/api/jobs/{quote(submission.id)}/logs")
        lines = str(answer.get("logs") or "").splitlines(keepends=True)
        return "".join(line for line in lines if not _of_ray(line))

    def stop(self, submission: Submission) -> None:
        self._json("POST", f"/api/jobs/{quote(submission.id)}/stop")

    def nodes(self) -> int:
        """How many nodes are alive."""
        summary = (self._json("GET", "/nodes?view=summary").get("data") or {}).get("summary") or []
        return sum((each.get("raylet") or {}).get("state") == "ALIVE" for each in summary)

    def usage(self) -> dict[str, tuple[float, float]]:
        """(used, there) by resource: CPU, GPU, …; empty where the cluster does not say."""
        answer = self._json("GET", "/api/cluster_status")
        report = ((answer.get("data") or {}).get("clusterStatus") or {}).get("loadMetricsReport") or {}
        return {name: (float(used), float(there)) for name, (used, there) in (report.get("usage") or {}).items()}

    def _forget_checks(self) -> None:
        """Takes the checks that are over from the cluster's list: who asked for one has its answer before it ends."""
        for each in self._json("GET", "/api/jobs/"):
            name = str(each.get("submission_id") or "")
            if name.startswith(CHECK) and STATUS.get(each["status"]) in ENDED:
                self._ask("DELETE", f"/api/jobs/{quote(name)}", allowed=(404, 500))  # another client may be first

    def _send(self, package: Package) -> bool:
        path = f"/api/packages/gcs/{package.name}"
        if self._ask("GET", path, allowed=(404,))[0] == 200:
            return False
        status, text = self._ask("PUT", path, package.zip(), allowed=(413, 500))
        if status == 413 or "Maximum request body size" in text:
            raise ClusterError(package.too_large())
        if status != 200:
            raise ClusterError(f"{self.address}: the package was refused: {_last_line(text)}")
        return True

    def _json(self, method: str, path: str) -> Any:
        return json.loads(self._ask(method, path)[1])

    def _ask(self, method: str, path: str, body: bytes | None = None, allowed: tuple[int, ...] = ()) -> tuple[int, str]:
        """Status and text of the answer. Raises ClusterError for any status but 200 and those `allowed`."""
        request = urllib.request.Request(self.address + path, data=body, method=method)
        if body is not None:
            kind = "application/json" if method == "POST" else "application/octet-stream"
            request.add_header("Content-Type", kind)
        if secret := token():
            # The second is for proxies that keep the first for themselves.
            request.add_header("Authorization", f"Bearer {secret}")
            request.add_header("X-Ray-Authorization", f"Bearer {secret}")
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code in allowed:
                return error.code, text
            raise ClusterError(f"{self.address}: {_refusal(error.code, text)}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ClusterError(f"{self.address}: no Ray cluster answers there: {_reason(error)}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token must not follow to wherever an answer points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def submission_id(run: str, number: int) -> str:
    """The n-th submission of a run. Two clients that send a run at once choose the same, and Ray takes only one."""
    return f"{run}--{number}"


def dashboard_address(said: str | None, local: str | None = None) -> str:
    """The address of a cluster's dashboard: as said, else RAY_API_SERVER_ADDRESS, else the `local` cluster's.

    Raises:
        ClusterError: there is none, or it is not the address of a dashboard.
    """
    address = said or os.environ.get("RAY_API_SERVER_ADDRESS") or local or ""
    if not address:
        raise ClusterError(
            "no cluster is named; give --cluster http://host:8265 or set RAY_API_SERVER_ADDRESS, or start one on this "
            "machine with: lehr cluster up"
        )
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    try:
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        right = False
    if not right:
        raise ClusterError(f'"{address}" is not the address of a dashboard; allowed: http://host:8265 or https://…')
    if parts.username or parts.password:
        raise ClusterError("credentials do not belong in the address of a cluster; set RAY_AUTH_TOKEN_PATH instead")
    return address.rstrip("/")


def token() -> str | None:
    """The cluster's token from Ray's own places: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        ClusterError: the file that RAY_AUTH_TOKEN_PATH names cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _clean(value, "RAY_AUTH_TOKEN")
    named, path = os.environ.get("RAY_AUTH_TOKEN_PATH"), token_file()
    try:
        return _clean(path.read_text().strip(), str(path)) or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ClusterError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read: {why}") from None
        return None


def token_file() -> Path:
    """The file that holds the token, where it is not in RAY_AUTH_TOKEN."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def _clean(value: str, where: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ClusterError(f"{where} does not hold a token; allowed: one line of letters, digits and signs")
    return value


def _refusal(code: int, text: str) -> str:
    if code == 401:
        off = os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"
        return (
            "the cluster asks for a token, and none was found; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it "
            "into ~/.ray/auth_token" + (" (RAY_AUTH_MODE=disabled keeps it from being sent)" if off else "")
        )
    if code == 403:
        return "the cluster does not accept this token; is it another cluster's?"
    if 300 <= code < 400:
        return "the address leads elsewhere (a redirect), and a token is not sent after it; give the final address"
    if code == 404:
        return "there is no Ray dashboard, or it does not know this job"
    return f"the cluster answered {code}: {_last_line(text)}"


def _last_line(text: str) -> str:
    """The last line that says something: of a trace, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1])[:300] if lines else "without a reason"


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner).strip() or type(inner).__name__


def _of_ray(line: str) -> bool:
    """Lines that Ray itself puts before what the job prints."""
    return line.startswith("Running entrypoint for job ") or bool(
        re.match(r"\[?[\d\-]+[ T][\d:,.]+\]? ?(\tINFO|INFO).*Runtime env is setting up", line)
    )


def _submission(each: Mapping[str, Any]) -> Submission:
    metadata = each.get("metadata") or {}
    variables = (each.get("runtime_env") or {}).get("env_vars") or {}
    try:
        request = Request.from_environment(variables)
    except (KeyError, TypeError, ValueError):
        request = None
    number = str(metadata.get("lehr_number", ""))
    return Submission(
        id=each["submission_id"],
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
