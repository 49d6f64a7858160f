"""Folder, data source, dashboards and annotations in a Grafana, through its HTTP API (library grafana-api).

An installation is planned first, from what Grafana has, and refused as a whole if it would overwrite anything of the
user's. Then it is carried out; if a step fails, the steps before it are undone.

The version history of a dashboard shows which versions are ours: each of our saves carries the message
`lehr (1a2b3c4d)`, with a digest of its content. If the newest version has another message, somebody has changed the
dashboard by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from lehr.errors import LehrError
from lehr.monitoring.ray_env import SOURCE_NAME

FOLDER_UID, FOLDER_TITLE = "lehr", "lehr"

TIMEOUT_SECONDS = 15.0
TOKEN_VARIABLES = "LEHR_GRAFANA_TOKEN, or LEHR_GRAFANA_TOKEN_FILE with the path of a file"

Json = dict[str, Any]
State = Literal["created", "updated", "unchanged"]
_T = TypeVar("_T")


class GrafanaError(LehrError):
    """Grafana refused a request or did not answer. One sentence says which, and why."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Change:
    """One step of an installation: its subject, the outcome, how to do it and how to undo it."""

    what: str
    state: State
    do: Callable[[], object] = lambda: None
    undo: Callable[[], object] = lambda: None


def connect(
    url: str, *, token_file: Path | None = None, environment: Mapping[str, str], timeout: float = TIMEOUT_SECONDS
) -> Grafana:
    """A Grafana, with the token of a service account from a file or the environment; `timeout` in seconds.

    Raises:
        GrafanaError: the URL is not valid, there is no token, or its file cannot be read.
    """
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        valid = False
    if not valid:
        raise GrafanaError(f'"{url}" is not a Grafana address; allowed: http://HOST:PORT or https://HOST/PATH')
    if parts.username or parts.password:
        raise GrafanaError(f"set the token in {TOKEN_VARIABLES}, not in the address of Grafana")
    file = token_file or (Path(path) if (path := environment.get("LEHR_GRAFANA_TOKEN_FILE")) else None)
    try:
        token = file.read_text().strip() if file else environment.get("LEHR_GRAFANA_TOKEN", "").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise GrafanaError(f"{file}: the token cannot be read: {reason}") from None
    if not token:
        raise GrafanaError(f"no token for Grafana; set {TOKEN_VARIABLES} that holds it")
    if not token.isprintable() or not token.isascii():
        raise GrafanaError("the token for Grafana must be one line of ASCII text")
    return Grafana(url, token, timeout)


class Grafana:
    """A Grafana at an address. Every failure is a `GrafanaError` that names the request."""

    def __init__(self, url: str, token: str, timeout: float) -> None:
        parts = urlsplit(url)
        path = parts.path.strip("/")
        self.url = url.rstrip("/")
        self._face = GrafanaFace(
            auth=token,
            host=f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname,
            port=parts.port,
            url_path_prefix=f"{path}/" if path else "",
            protocol=parts.scheme,
            timeout=timeout,
        )
        self._api = self._face.api

    def check(self) -> None:
        """Raises GrafanaError where no Grafana answers, or where it rejects the token."""
        health = self._ask("pass the health check", lambda: self._api.GET("/health"))
        if not isinstance(health, dict) or "database" not in health:
            raise self._not_grafana()
        self._ask("accept the token", lambda: self._api.GET("/org"))

    def annotate(self, time: int, text: str, tags: list[str]) -> None:
        """Adds an annotation of the organisation at `time`, in ms since 1970. Raises GrafanaError."""
        self._ask(
            "add an annotation", lambda: self._face.annotations.add_annotation(None, None, time, None, tags, text)
        )

    # ── installing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def install(
        self,
        dashboards: list[Json],
        *,
        others: Sequence[Json] = (),
        prometheus: str | None = None,
        force: bool = False,
    ) -> list[Change]:
        """Creates or updates folder, data source and dashboards, and returns what was done.

        Args:
            dashboards: each with its own `uid` and `title`.
            others: dashboards that somebody else may have installed too; theirs are kept.
            prometheus: address of Prometheus as Grafana reaches it; None uses a Prometheus data source that exists.
            force: overwrites dashboards and a data source that were changed by hand.

        Raises:
            GrafanaError: one sentence; it says what could not be undone, if anything.
        """
        self.check()
        changes = [self._folder(), self._source(prometheus, force)]
        changes += [self._dashboard(dashboard, force) for dashboard in dashboards]
        changes += [self._dashboard(dashboard, force=False, keep_theirs=True) for dashboard in others]
        for number, change in enumerate(changes):
            try:
                change.do()
            except GrafanaError as error:
                # A refusal changed nothing; a server that failed or stopped answering may have changed it anyway.
                refused = error.status is not None and error.status < 500
                done = changes[: number if refused else number + 1]
                raise GrafanaError(f"{error}; {_undo(done)}", error.status) from error
        return changes

    def _folder(self) -> Change:
        what = f'folder "{FOLDER_TITLE}"'
        if self._find(f"look for the {what}", lambda: self._face.folder.get_folder(FOLDER_UID)):
            return Change(what, "unchanged")
        return Change(
            what,
            "created",
            lambda: self._ask(f"create the {what}", lambda: self._face.folder.create_folder(FOLDER_TITLE, FOLDER_UID)),
            lambda: self._ask(f"delete the {what}", lambda: self._face.folder.delete_folder(FOLDER_UID)),
        )

    def _source(self, url: str | None, force: bool) -> Change:
        if url is None:
            sources = self._ask("list its data sources", self._face.datasource.list_datasources)
            named = [source["name"] for source in sources if source.get("type") == "prometheus"]
            if not named:
                raise GrafanaError(f"{self.url} has no Prometheus data source; name one with --prometheus URL")
            return Change(f'data source "{named[0]}"', "unchanged")
        what = f'data source "{SOURCE_NAME}"'
        wanted = {"name": SOURCE_NAME, "type": "prometheus", "access": "proxy", "url": url.rstrip("/")}
        found = self._find(f"look for the {what}", lambda: self._face.datasource.find_datasource(SOURCE_NAME))
        sources = self._face.datasource
        if not found:
            return Change(
                what,
                "created",
                lambda: self._ask(f"create the {what}", lambda: sources.create_datasource(wanted)),
                lambda: self._ask(f"delete the {what}", lambda: sources.delete_datasource_by_name(SOURCE_NAME)),
            )
        if all(found.get(key) == value for key, value in wanted.items()):
            return Change(what, "unchanged")
        if not force:
            raise GrafanaError(
                f"the {what} points to {found.get('url')} ({found.get('type')}), not to {wanted['url']}; "
                "--force changes it"
            )
        return Change(
            what,
            "updated",
            lambda: self._ask(
                f"update the {what}", lambda: sources.update_datasource(found["id"], {**found, **wanted})
            ),
            lambda: self._ask(f"restore the {what}", lambda: sources.update_datasource(found["id"], found)),
        )

    def _dashboard(self, dashboard: Json, force: bool, keep_theirs: bool = False) -> Change:
        uid, what = dashboard["uid"], f'dashboard "{dashboard["title"]}"'
        message = f"lehr ({digest(dashboard)})"
        found = self._find(f"look for the {what}", lambda: self._face.dashboard.get_dashboard(uid))
        if not found:
            return Change(
                what,
                "created",
                lambda: self._save(f"create the {what}", {**dashboard, "id": None}, FOLDER_UID, message),
                lambda: self._ask(f"delete the {what}", lambda: self._face.dashboard.delete_dashboard(uid)),
            )
        old, folder = found["dashboard"], found.get("meta", {}).get("folderUid", "")
        last = self._last_message(uid, what)
        ours = last.startswith("lehr (")
        if last == message or (keep_theirs and not ours):
            return Change(what, "unchanged")
        if not ours and not force:
            raise GrafanaError(
                f"the {what} was changed by hand in {self.url} (version {old.get('version')}); "
                "save yours under another name, or overwrite it with --force"
            )
        # With the version that was read, Grafana refuses if somebody saves in between.
        new = {**dashboard, "id": old.get("id"), "version": old.get("version")}
        return Change(
            what,
            "updated",
            lambda: self._save(f"update the {what}", new, folder, message),
            lambda: self._save(f"restore the {what}", old, folder, last, overwrite=True),
        )

    def _save(self, what: str, dashboard: Json, folder: str, message: str, overwrite: bool = False) -> None:
        body = {"dashboard": dashboard, "folderUid": folder, "message": message, "overwrite": overwrite}
        self._ask(what, lambda: self._face.dashboard.update_dashboard(body))

    def _last_message(self, uid: str, what: str) -> str:
        """The message of the newest version in the dashboard's history."""
        answer = self._ask(f"list the versions of the {what}", lambda: self._api.GET(f"/dashboards/uid/{uid}/versions"))
        versions = answer.get("versions", []) if isinstance(answer, dict) else answer  # a list before Grafana 11
        newest = max(versions, key=lambda version: version["version"], default=None)
        return str((newest or {}).get("message") or "")

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self, what: str, ask: Callable[[], _T]) -> _T | None:
        """The answer, or None where Grafana says 404."""
        try:
            return self._ask(what, ask)
        except GrafanaError as error:
            if error.status == 404:
                return None
            raise

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except GrafanaException as error:
            raise GrafanaError(f"{self.url} did not {what}: {_reason(error)}", error.status_code) from None
        except requests.RequestException as error:
            if isinstance(error, requests.JSONDecodeError):
                raise self._not_grafana() from None
            reason = "no answer in time" if isinstance(error, requests.Timeout) else "no server answers there"
            raise GrafanaError(f"{self.url} did not {what}: {reason}") from None

    def _not_grafana(self) -> GrafanaError:
        return GrafanaError(f"{self.url} answers, but not like a Grafana; check the address and its path")


def _undo(changes: list[Change]) -> str:
    """Undoes changes, the last one first, and says whether that worked."""
    left = []
    for change in reversed(changes):
        try:
            change.undo()
        except GrafanaError as error:
            if error.status != 404:  # then it was never created
                left.append(change.what)
    return f"and could not be undone: {', '.join(left)}" if left else "nothing was changed"


def digest(dashboard: Json) -> str:
    """Eight hexadecimal digits that identify the content of a dashboard."""
    return hashlib.sha256(json.dumps(dashboard, sort_keys=True).encode()).hexdigest()[:8]


def _reason(error: GrafanaException) -> str:
    status, response = error.status_code, error.response
    message = response.get("message", "") if isinstance(response, dict) else ""
    message = " ".join(str(message).split())[:200].rstrip(".")
    known = {
        401: "the token is not valid (401)",
        403: "the token lacks the permission (403); its service account needs the role Admin, or Editor where the "
        "data source exists",
        404: "it does not exist (404); check the address and its path",
        412: "somebody else has just changed it (412); try again",
    }
    if status in known:
        return known[status] + (f', Grafana says "{message}"' if message and status in (403, 412) else "")
    return f"it failed with {status}" + (f', "{message}"' if message else "")
