"""A small server that behaves as Grafana's HTTP API is documented, stores what it receives and records every call.

Each answer names the page that it follows, below https://grafana.com/docs/grafana/latest/developers/http_api/ .
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "glsa_for_tests"


class GrafanaServer:
    """State of the server.

    Attributes:
        calls: "METHOD /path" of every request, in order.
        fails: "METHOD /path" to the status and body of the answer; status 0 closes the connection.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, tuple[int, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: list[dict[str, Any]] = []
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.url = ""

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET")]

    def state(self) -> Any:
        """Everything stored except the version histories, to compare before and after."""
        boards = {uid: {**d["dashboard"], "version": 0} for uid, d in self.dashboards.items()}
        return json.loads(json.dumps([self.folders, self.sources, boards]))

    def save_by_hand(self, uid: str, **changes: Any) -> None:
        """What happens when a person edits a dashboard in the browser."""
        board = {**self.dashboards[uid]["dashboard"], **changes}
        self._save({"dashboard": board, "folderUid": "lehr", "message": "", "overwrite": True})

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
        if path == "/api/health":  # other.md: health needs no token
            return 200, {"commit": "087143285", "database": "ok", "version": "11.0.0"}
        if token != f"Bearer {TOKEN}":  # authentication.md
            return 401, {"message": "Invalid API key"}
        for pattern, name in ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                return getattr(self, name)(*match.groups(), *([body] if body is not None else []))
        return 404, {"message": "Not found"}

    def org(self) -> tuple[int, Any]:  # org.md, "Get current Organization"
        return 200, {"id": 1, "name": "Main Org."}

    def get_folder(self, uid: str) -> tuple[int, Any]:  # folder.md, "Get folder by uid"
        return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})

    def create_folder(self, body: Any) -> tuple[int, Any]:  # folder.md, "Create folder"
        if body["uid"] in self.folders:
            return 409, {"message": "a folder with that uid already exists"}
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, **body, "version": 1}
        return 200, self.folders[body["uid"]]

    def delete_folder(self, uid: str) -> tuple[int, Any]:  # folder.md, "Delete folder": its dashboards go too
        if uid not in self.folders:
            return 404, {"message": "folder not found"}
        del self.folders[uid]
        for board in [b for b, d in self.dashboards.items() if d["meta"]["folderUid"] == uid]:
            del self.dashboards[board]
        return 200, {"message": "Folder deleted", "id": 1}

    def list_sources(self) -> tuple[int, Any]:  # data_source.md, "Get all data sources"
        return 200, self.sources

    def get_source(self, name: str) -> tuple[int, Any]:  # data_source.md, "Get a single data source by name"
        found = [source for source in self.sources if source["name"] == name]
        return (200, found[0]) if found else (404, {"message": "Data source not found"})

    def create_source(self, body: Any) -> tuple[int, Any]:  # data_source.md, "Create a data source"
        source = {"id": len(self.sources) + 1, "orgId": 1, "isDefault": False, "version": 1, **body}
        self.sources.append(source)
        return 200, {"datasource": source, "id": source["id"], "message": "Datasource added", "name": body["name"]}

    def update_source(self, number: str, body: Any) -> tuple[int, Any]:  # data_source.md, "Update … by id"
        for source in self.sources:
            if source["id"] == int(number):
                source.update(body)
                return 200, {"datasource": source, "id": source["id"], "message": "Datasource updated"}
        return 404, {"message": "Data source not found"}

    def delete_source(self, name: str) -> tuple[int, Any]:  # data_source.md, "Delete … by name"
        before, self.sources = self.sources, [s for s in self.sources if s["name"] != name]
        found = len(before) > len(self.sources)
        return (200, {"message": "Data source deleted"}) if found else (404, {"message": "Data source not found"})

    def get_dashboard(self, uid: str) -> tuple[int, Any]:  # dashboard.md, "Get dashboard by uid"
        return (200, self.dashboards[uid]) if uid in self.dashboards else (404, {"message": "Dashboard not found"})

    def delete_dashboard(self, uid: str) -> tuple[int, Any]:  # dashboard.md, "Delete dashboard by uid"
        if uid not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        title = self.dashboards.pop(uid)["dashboard"]["title"]
        return 200, {"title": title, "message": f"Dashboard {title} deleted", "id": 2}

    def versions(self, uid: str) -> tuple[int, Any]:  # dashboard_versions.md, "Get all dashboard versions by UID"
        if uid not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        return 200, {"continueToken": "", "versions": self.history[uid][::-1]}

    def save_dashboard(self, body: Any) -> tuple[int, Any]:  # dashboard.md, "Create / Update dashboard"
        board, old = body["dashboard"], self.dashboards.get(body["dashboard"]["uid"])
        if old and not body["overwrite"]:
            if board.get("id") is None:
                return 412, {"message": "A dashboard with the same uid already exists", "status": "name-exists"}
            if board.get("version") != old["dashboard"]["version"]:
                return 412, {
                    "message": "The dashboard has been changed by someone else",
                    "status": "version-mismatch",
                }
        return 200, self._save(body)

    def _save(self, body: Any) -> Any:
        board = dict(body["dashboard"])
        uid, old = board["uid"], self.dashboards.get(board["uid"])
        board["version"] = (old["dashboard"]["version"] if old else 0) + 1
        board["id"] = board.get("id") or len(self.dashboards) + 1
        self.dashboards[uid] = {"dashboard": board, "meta": {"folderUid": body.get("folderUid", ""), "slug": uid}}
        version = {"id": board["version"], "uid": uid, "version": board["version"], "message": body.get("message", "")}
        self.history.setdefault(uid, []).append(version)
        return {"id": board["id"], "uid": uid, "url": f"/d/{uid}/", "status": "success", "version": board["version"]}

    def add_annotation(self, body: Any) -> tuple[int, Any]:  # annotations.md, "Create Annotation"
        self.annotations.append(body)
        return 200, {"message": "Annotation added", "id": len(self.annotations)}


ROUTES = (
    (r"GET /api/org", "org"),
    (r"GET /api/folders/([\w-]+)", "get_folder"),
    (r"POST /api/folders", "create_folder"),
    (r"DELETE /api/folders/([\w-]+)", "delete_folder"),
    (r"GET /api/datasources", "list_sources"),
    (r"GET /api/datasources/name/([\w-]+)", "get_source"),
    (r"POST /api/datasources", "create_source"),
    (r"PUT /api/datasources/(\d+)", "update_source"),
    (r"DELETE /api/datasources/name/([\w-]+)", "delete_source"),
    (r"GET /api/dashboards/uid/([\w-]+)", "get_dashboard"),
    (r"DELETE /api/dashboards/uid/([\w-]+)", "delete_dashboard"),
    (r"GET /api/dashboards/uid/([\w-]+)/versions", "versions"),
    (r"POST /api/dashboards/db", "save_dashboard"),
    (r"POST /api/annotations", "add_annotation"),
)


@contextmanager
def serving(prefix: str = "") -> Iterator[GrafanaServer]:
    """A server on a free local port, below the path `prefix`."""
    server = GrafanaServer()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            path = self.path.removeprefix(prefix)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            server.calls.append(f"{self.command} {path}")
            status, answer = server.fails.get(f"{self.command} {path}", (-1, None))
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            if status == -1:
                status, answer = server.answer(self.command, path, body, self.headers.get("Authorization", ""))
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}{prefix}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
