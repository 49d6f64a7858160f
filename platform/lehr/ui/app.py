"""The web server of `lehr ui`: a table of runs, a page for each, and several on the same axes. Everything is read-only.

Whoever may open the pages has the token that stands in the address; a cookie keeps it. Only the names of hosts that the
server was started for are answered, so that a page elsewhere cannot reach it through a name of its own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from urllib.parse import quote

from aiohttp import web

from lehr.errors import LehrError, RunError
from lehr.runs import Folder, RunFolder
from lehr.ui.index import ENDED, Index, row_of
from lehr.ui.rendering import Renderer

COOKIE = "lehr-ui"
MOST_COMPARED = 12
MOST_LOG = 64 << 10  # bytes of the end of a log
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "SAMEORIGIN",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(storage: Folder, token: str, hosts: frozenset[str]) -> web.Application:
    """The application.

    Args:
        token: what the address must bring once.
        hosts: the names and addresses under which it is reached, without ports; empty: any.
    """
    pages = Pages(storage, token, hosts)
    app = web.Application(middlewares=[pages.guard])
    app.add_routes(
        [
            web.get("/", pages.table),
            web.get("/runs", pages.runs),
            web.get("/run/{name}", pages.run),
            web.get("/run/{name}/row", pages.row),
            web.get("/run/{name}/report", pages.report),
            web.get("/run/{name}/log", pages.log),
            web.get("/compare", pages.compare),
            web.get("/health", pages.health),
        ]
    )
    app.cleanup_ctx.append(pages.alive)
    return app


class Pages:
    """What the server answers."""

    def __init__(self, storage: Folder, token: str, hosts: frozenset[str]) -> None:
        self.storage, self.token, self.hosts = storage, token, hosts
        self.index, self.renderer = Index(storage), Renderer()

    async def alive(self, app: web.Application) -> AsyncIterator[None]:
        """Reads the storage as long as the server runs."""
        stop = threading.Event()
        reader = threading.Thread(target=self.index.follow, args=[stop], name="lehr-ui-index", daemon=True)
        reader.start()
        idle = asyncio.create_task(self._end_idle())
        yield
        stop.set()
        idle.cancel()
        self.renderer.close()

    async def _end_idle(self) -> None:
        while True:
            await asyncio.sleep(10)
            self.renderer.end_if_idle()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who has the token, sets the headers, and turns errors into one sentence."""
        host = request.host.rsplit(":", 1)[0].strip("[]") if "]" not in request.host else request.host[1:].split("]")[0]
        if self.hosts and host not in self.hosts:
            return _text(f"this page is not served as {host}", 421)
        if request.path != "/health" and not self._has_token(request):
            return _text("open the address that `lehr ui` has printed: it brings a token", 403)
        if "token" in request.query:
            return self._welcome(request)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = _text(error.reason, error.status)
        except LehrError as error:
            answer = _text(str(error), 404 if isinstance(error, RunError) else 500)
        answer.headers.update(HEADERS)
        return answer

    def _has_token(self, request: web.Request) -> bool:
        brought = request.query.get("token") or request.cookies.get(COOKIE) or ""
        return secrets.compare_digest(brought.encode(), self.token.encode())

    def _welcome(self, request: web.Request) -> web.Response:
        """The same page without the token in its address; the cookie has it from now on."""
        rest = "&".join(f"{quote(key)}={quote(value)}" for key, value in request.query.items() if key != "token")
        answer = web.Response(status=303, headers={"Location": request.path + (f"?{rest}" if rest else ""), **HEADERS})
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="Strict")
        return answer

    # ── pages ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def table(self, request: web.Request) -> web.Response:
        return _page("table.html", {"storage": self.storage.uri})

    async def runs(self, request: web.Request) -> web.Response:
        """The rows that changed since a version."""
        since = request.query.get("since", "0")
        return web.json_response(self.index.since(int(since) if since.isdecimal() else 0))

    async def run(self, request: web.Request) -> web.Response:
        run = self._run(request)
        return _page("run.html", {"row": await asyncio.to_thread(row_of, run), "ended": ENDED})

    async def row(self, request: web.Request) -> web.Response:
        """What is known of a run now, and how often its record has changed."""
        row = await asyncio.to_thread(row_of, self._run(request))
        return web.json_response(row)

    async def report(self, request: web.Request) -> web.Response:
        """The run's own report where it has ended, else one of its record so far, or a sentence where there is none."""
        run = self._run(request)
        state = await asyncio.to_thread(run.status)
        if state in ENDED and run.folder.exists("report.html"):
            page = (await asyncio.to_thread(run.folder.read, "report.html")).decode()
        else:
            try:
                page = await self.renderer.report(run.folder.uri)
            except LehrError as error:
                return _text(str(error))
        return web.Response(text=page, content_type="text/html")

    async def log(self, request: web.Request) -> web.Response:
        """The end of a run's log."""
        run = self._run(request)
        if not run.folder.exists("log.txt"):
            return _text("this run has no log here", 404)
        data = await asyncio.to_thread(run.folder.read, "log.txt")
        return _text(data[-MOST_LOG:].decode(errors="replace"))

    async def compare(self, request: web.Request) -> web.Response:
        names = [name for name in request.query.get("runs", "").split(",") if name]
        if not 2 <= len(names) <= MOST_COMPARED:
            return _text(f"{len(names)} runs; allowed: 2 to {MOST_COMPARED}", 400)
        uris = tuple(self._named(name).folder.uri for name in names)
        return web.Response(text=await self.renderer.comparison(uris), content_type="text/html")

    async def health(self, request: web.Request) -> web.Response:
        return _text("ok")

    def _run(self, request: web.Request) -> RunFolder:
        return self._named(request.match_info["name"])

    def _named(self, name: str) -> RunFolder:
        """The run of this name directly in the storage. Raises RunError where there is none."""
        if "/" in name or "\\" in name or name.startswith("."):
            raise RunError(f'no run "{name}" here')
        folder = self.storage.child(name)
        if not folder.exists("job.yaml"):
            raise RunError(f'no run "{name}" here')
        return RunFolder.open(folder)


def _text(words: str, status: int = 200) -> web.Response:
    return web.Response(text=words, status=status, headers=HEADERS)


def _page(name: str, content: dict[str, object]) -> web.Response:
    """A page whose script reads `content`. Nothing but that script runs, and it reaches nothing but this server."""
    nonce = secrets.token_urlsafe(16)
    said = json.dumps(content).replace("<", "\\u003c")
    template = files("lehr.ui").joinpath(name).read_text(encoding="utf-8")
    style = files("lehr.ui").joinpath("style.css").read_text(encoding="utf-8")
    page = template.replace("{{style}}", style).replace("{{nonce}}", nonce).replace("{{content}}", said)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'"
    )
    return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": policy})
