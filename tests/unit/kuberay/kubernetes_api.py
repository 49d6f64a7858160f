"""A fake of Kubernetes' API server, which keeps objects, records requests, and answers as Kubernetes documents it.

- Refusals are `Status` objects: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
- Watches, resource versions and 410 Gone: https://kubernetes.io/docs/reference/using-api/api-concepts/
- A kind that is not installed has no path, and unknown paths are answered with a text: "404 page not found"
  (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
- Pod logs: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ (`/log`).
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired"}


def status(code: int, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": REASONS[code],
        "code": code,
    }


def merged(old: Any, change: Any) -> Any:
    """An object after a JSON merge patch (RFC 7386)."""
    if not isinstance(old, dict) or not isinstance(change, dict):
        return change
    return {key: merged(old.get(key), change.get(key, old.get(key))) for key in {**old, **change}}


@dataclass
class Cluster:
    """What the server holds, and how it misbehaves.

    Attributes:
        operator: whether KubeRay is installed.
        objects: by (kind's plural, name).
        log: what the pod of any job has printed.
        refuse: for (method, path), the status code to refuse with; None to answer.
        watches: the events that each watch sends, one list after the other; then nothing more.
        namespaces: those that exist.
        requests: (method, path and query) of every request, in order.
    """

    operator: bool = True
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    log: str = ""
    refuse: Callable[[str, str], int | None] = lambda method, path: None
    watches: list[list[dict[str, Any]]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    version: int = 100
    namespaces: tuple[str, ...] = ("team",)

    def put(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        meta = {**body["metadata"], "uid": str(uuid.UUID(int=self.version)), "resourceVersion": str(self.version)}
        meta["creationTimestamp"] = f"2030-01-02T03:{self.version // 60 % 60:02d}:{self.version % 60:02d}Z"
        self.objects[plural, body["metadata"]["name"]] = {**body, "metadata": meta}
        return self.objects[plural, body["metadata"]["name"]]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if parts[0] == "apis" and not self.operator:
            return 404, "404 page not found\n"
        if code := self.refuse(method, path):
            user = 'User "ann" cannot do that'
            return code, status(code, f"{parts[-1]} is {REASONS[code].lower()}: {user}")
        if parts[0] == "api" and len(parts) == 4:
            known = parts[3] in self.namespaces
            gone = {**status(404, f'namespaces "{parts[3]}" not found'), "details": {"kind": "namespaces"}}
            return (200, {"kind": "Namespace", "metadata": {"name": parts[3]}}) if known else (404, gone)
        plural, name = parts[5 if parts[0] == "apis" else 4], (parts[6:] if parts[0] == "apis" else parts[5:])
        if method == "POST" and query.get("dryRun") == ["All"]:
            return 201, body
        if method == "PATCH":
            self.version += 1
            self.objects[plural, name[0]] = merged(self.objects[plural, name[0]], body)
            return 200, self.objects[plural, name[0]]
        if method == "POST":
            wanted = body["metadata"]["name"]
            if (plural, wanted) in self.objects:
                return 409, status(409, f'{plural} "{wanted}" already exists')
            return 201, self.put(plural, body)
        if not name:
            if "watch" in query:
                return 200, self.watches.pop(0) if self.watches else []
            selector = dict(pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair)
            items = [
                each
                for (kind, _), each in self.objects.items()
                if kind == plural and selector.items() <= each["metadata"].get("labels", {}).items()
            ]
            return 200, {
                "kind": "List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self.version)},
                "items": items,
            }
        if (plural, name[0]) not in self.objects:
            return 404, status(404, f'{plural} "{name[0]}" not found')
        if name[1:] == ["log"]:
            return 200, self.log
        if method == "DELETE":
            return 200, self.objects.pop((plural, name[0]))
        return 200, self.objects[plural, name[0]]


class Server:
    """The cluster behind HTTP, on a free port of this machine."""

    def __init__(self, cluster: Cluster) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                cluster.requests.append((self.command, self.path))
                code, answer = cluster.answer(self.command, url.path, parse_qs(url.query), body)
                is_text = isinstance(answer, str)
                if isinstance(answer, list):
                    data = "".join(json.dumps(event) + "\n" for event in answer).encode()
                else:
                    data = answer.encode() if is_text else json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/plain" if is_text else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PATCH = handle_one  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def kubeconfig(self) -> str:
        """A kubeconfig that names this server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "ann"}}],
                "clusters": [{"name": "here", "cluster": {"server": self.address}}],
                "users": [{"name": "ann", "user": {"token": "not-a-secret"}}],
            }
        )

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
