"""The HTTP interface of a Ray cluster, without importing Ray: a command answers in a fraction of the time."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lehr.errors import ClusterError

TIMEOUT_SECONDS = 30.0


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
            raise ClusterError(f"{self.address}: {_refusal(error.code, text)}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ClusterError(f"{self.address}: no Ray cluster answers there: {_reason(error)}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token must not be sent to wherever an answer points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


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


def token() -> str | None:
    """The cluster's token, from where Ray looks for it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        ClusterError: the file that RAY_AUTH_TOKEN_PATH names cannot be read, or what was found is not a token.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(value, "RAY_AUTH_TOKEN")
    named, path = os.environ.get("RAY_AUTH_TOKEN_PATH"), token_file()
    try:
        return _checked(path.read_text().strip(), str(path)) or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ClusterError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read: {why}") from None
        return None


def token_file() -> Path:
    """The file that holds the token, where it is not in RAY_AUTH_TOKEN."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def last_line(text: str) -> str:
    """The last line that is not empty, without the exception's class: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1])[:300] if lines else "no reason given"


def _checked(value: str, where: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ClusterError(f"{where} does not hold a token; allowed: one line of letters, digits and punctuation")
    return value


def _refusal(code: int, text: str) -> str:
    if code == 401:
        off = os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"
        return (
            "the cluster asks for a token, and none was found; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it "
            "into ~/.ray/auth_token" + (" (RAY_AUTH_MODE=disabled keeps it from being sent)" if off else "")
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
