"""A fake of Ray's dashboard: a server that answers as the dashboard does.

Answers follow https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html (jobs), and
https://docs.ray.io/en/latest/ray-security/token-auth.html (401 without a token, 403 with a wrong one).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lehr.submission.backend import Request


class Dashboard:
    """What the server knows, and what it was asked.

    Attributes:
        token: the one that it requires; None where it requires none.
        jobs: by submission id, as GET /api/jobs/ lists them.
        run: runs a submitted request at once, and returns its log.
        answer: overrides the answer to a path: (status, text).
    """

    def __init__(self) -> None:
        self.token: str | None = None
        self.jobs: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, bytes] = {}
        self.logs: dict[str, str] = {}
        self.run: Callable[[Request], str] = lambda request: ""
        self.answer: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.address = ""

    def handle(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        self.asked.append((method, path))
        self.headers.append(headers)
        if path in self.answer:
            return self.answer[path]
        if self.token is not None:
            given = headers.get("authorization")
            if not given:
                return 401, "Unauthorized: Missing authentication token"
            if given != f"Bearer {self.token}":
                return 403, "Forbidden: Invalid authentication token"
        if path.startswith("/api/packages/gcs/"):
            name = path.rpartition("/")[2]
            if method == "PUT":
                self.packages[name] = body
                return 200, ""
            return (200, "") if name in self.packages else (404, f"Package gcs://{name} does not exist")
        if (method, path) == ("POST", "/api/jobs/"):
            return self.submit(json.loads(body))
        if (method, path) == ("GET", "/api/jobs/"):
            return 200, json.dumps(list(self.jobs.values()))
        if path.startswith("/api/jobs/"):
            return self.one(method, *path.removeprefix("/api/jobs/").partition("/")[::2])
        return 404, "404: Not Found"

    def submit(self, asked: dict[str, Any]) -> tuple[int, str]:
        name = asked["submission_id"]
        if name in self.jobs:
            why = f"ValueError: Job with submission_id {name} already exists. Please use a different submission_id."
            return 500, f"Traceback (most recent call last):\n{why}\n"
        known = {key: asked[key] for key in ("submission_id", "entrypoint", "runtime_env", "metadata")}
        started = 1000 * len(self.jobs) + 1000
        self.logs[name] = self.run(Request.from_environment(asked["runtime_env"]["env_vars"]))
        self.jobs[name] = {**known, "type": "SUBMISSION", "status": "PENDING", "start_time": started}
        return 200, json.dumps({"job_id": name, "submission_id": name})

    def one(self, method: str, name: str, what: str) -> tuple[int, str]:
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        if what == "logs":
            return 200, json.dumps({"logs": self.logs.get(name, "")})
        if what == "stop":
            self.jobs[name]["status"] = "STOPPED"
            return 200, json.dumps({"stopped": True})
        return 200, json.dumps(self.jobs.pop(name) if method == "DELETE" else self.jobs[name])


@pytest.fixture(name="dashboard")
def dashboard_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Dashboard]:
    """The server on loopback, with nothing of this machine's own Ray in the environment."""
    known = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, text = known.handle(self.command, self.path, body, headers)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", text)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))
    yield known
    server.shutdown()
    server.server_close()
