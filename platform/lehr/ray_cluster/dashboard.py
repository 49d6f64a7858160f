"""The HTTP interface of a Ray cluster, without importing Ray: a command answers in a fraction of the time."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from lehr.errors import ClusterError
from lehr.ray_cluster.token import is_disabled, token

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0


class DashboardClient:
    """The dashboard of one cluster. Every method raises ClusterError, with one sentence, where it gets no answer.

    Args:
        address: `http://host:8265`, as `dashboard_address` returns it.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def version(self) -> str:
        """Ray's version on the cluster."""
        return str(self.call("GET", "/api/version")["ray_version"])

    def session(self) -> str:
        """The name of Ray's current session; its files on a node are in a folder of that name."""
        return str(self.call("GET", "/api/version")["session_name"])

    def nodes(self) -> int:
        """How many nodes are alive."""
        summary = (self.call("GET", "/nodes?view=summary").get("data") or {}).get("summary") or []
        return sum((each.get("raylet") or {}).get("state") == "ALIVE" for each in summary)

    def usage(self) -> dict[str, tuple[float, float]]:
        """(used, total) by resource: CPU, GPU, …; empty where the cluster does not say."""
        answer = self.call("GET", "/api/cluster_status")
        report = ((answer.get("data") or {}).get("clusterStatus") or {}).get("loadMetricsReport") or {}
        return {name: (float(used), float(total)) for name, (used, total) in (report.get("usage") or {}).items()}

    def call(self, method: str, path: str) -> Any:
        """The answer to a request without a body, parsed."""
        return json.loads(self.request(method, path)[1])

    def request(
        self, method: str, path: str, body: bytes | None = None, allowed: tuple[int, ...] = ()
    ) -> tuple[int, str]:
        """Status and text of the answer. Raises ClusterError for any status but 200 and those `allowed`."""
        request = urllib.request.Request(self.address + path, data=body, method=method)
        if body is not None:
            kind = "application/json" if method == "POST" else "application/octet-stream"
            request.add_header("Content-Type", kind)
        if secret := token():
            # The second is for proxies that consume the first.
            request.add_header("Authorization", f"Bearer {secret}")
            request.add_header("X-Ray-Authorization", f"Bearer {secret}")
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code in allowed:
                return error.code, text
            which = _named_by(self.address) if error.code == 404 else ""
            raise ClusterError(f"{self.address}: {_refusal(error.code, text)}{which}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ClusterError(
                f"{self.address}: no Ray cluster answers there: {_reason(error)}{_named_by(self.address)}"
            ) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token must not be sent to wherever an answer points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _Impatient(HTTPConnection):
    """Waits for an answer longer than for a machine that may be gone."""

    def connect(self) -> None:
        self.timeout = CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(TIMEOUT_SECONDS)


class _ImpatientTLS(HTTPSConnection, _Impatient):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Impatient, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_ImpatientTLS, req)


_OPENER = urllib.request.build_opener(_NoRedirects, _Http, _Https)


def dashboard_address(given: str | None, local: str | None = None) -> str:
    """The address of a cluster's dashboard: as given, else RAY_API_SERVER_ADDRESS, else the `local` cluster's.

    Raises:
        ClusterError: there is none, or it is not the address of a dashboard.
    """
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS") or local or ""
    if not address:
        raise ClusterError(
            "no cluster given; pass --cluster http://host:8265, set RAY_API_SERVER_ADDRESS, or start a cluster on this "
            "machine with: lehr cluster up"
        )
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        raise ClusterError(f'"{address}" is not the address of a dashboard; allowed: http://host:8265 or https://…')
    if parts.username or parts.password:
        raise ClusterError("credentials do not belong in the address of a cluster; set RAY_AUTH_TOKEN_PATH instead")
    return address.rstrip("/")


def _named_by(address: str) -> str:
    """What to change where the environment named the address, and nobody may remember it."""
    named = os.environ.get("RAY_API_SERVER_ADDRESS", "").rstrip("/")
    if not named or address not in (named, f"http://{named}"):
        return ""
    return " (RAY_API_SERVER_ADDRESS names it); pass --cluster http://host:8265, or type: unset RAY_API_SERVER_ADDRESS"


def last_line(text: str) -> str:
    """The last line that is not empty, without the exception's class: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1])[:300] if lines else "no reason given"


def _refusal(code: int, text: str) -> str:
    if code == 401:
        return (
            "the cluster asks for a token, and none was found; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it "
            "into ~/.ray/auth_token" + (" (RAY_AUTH_MODE=disabled keeps it from being sent)" if is_disabled() else "")
        )
    if code == 403:
        return "the cluster does not accept this token; does it belong to another cluster?"
    if 300 <= code < 400:
        return "the address redirects elsewhere, and a token is not sent there; give the final address"
    if code == 404:
        return "there is no Ray dashboard, or it does not know this job"
    return f"the cluster answered {code}: {last_line(text)}"


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner).strip() or type(inner).__name__
