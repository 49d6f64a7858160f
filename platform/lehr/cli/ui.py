"""`lehr ui`: the runs of a storage folder as web pages."""

from __future__ import annotations

import errno
import secrets
import socket
from typing import Annotated

import typer

from lehr.cli.options import storage_or_default
from lehr.errors import JobError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def ui(
    storage: Annotated[
        str | None,
        typer.Argument(
            help="Folder or URI that holds the runs. By default LEHR_STORAGE, else ./runs.", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8090,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="LEHR_UI_TOKEN", help="What the address must bring. [default: a random one]", show_default=False
        ),
    ] = None,
) -> None:
    """Show runs as web pages: a table, a page for each that moves while it trains, and several on the same axes.

    Reads run folders and writes nothing. Whoever has the printed address may look; stop with Ctrl-C.

    Example: lehr ui
    Example: lehr ui s3://lab/runs --port 8091
    """
    from aiohttp import web

    from lehr.runs import Folder
    from lehr.ui.app import make_app

    where = Folder.at(storage_or_default(storage))
    key = secrets.token_urlsafe(16) if token is None else token
    if not key:
        raise JobError("is empty; allowed: leave it out for a random one", field="--token")
    listening = _listen(host, port)
    names = LOOPBACK | {host} if host in LOOPBACK else frozenset()
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    print(f"Runs of {where.uri}: http://{shown}:{port}/?token={key}\nStop with Ctrl-C.", flush=True)
    web.run_app(make_app(where, key, names), sock=listening, print=None, access_log=None, handle_signals=True)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises JobError where that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what = f"{port} is taken by another program; allowed: another one, such as --port {port + 1}"
            raise JobError(what, field="--port") from None
        raise JobError(f"{host} cannot be listened on: {error.strerror or error}", field="--host") from None
