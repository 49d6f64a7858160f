"""`lehr ui`: the runs of a storage folder as web pages."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from lehr.cli.listening import LOOPBACK, address_of, refuse_taken
from lehr.cli.options import storage_or_default
from lehr.errors import JobError


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
    refuse_taken(host, port)
    names = frozenset(LOOPBACK) if host in LOOPBACK else frozenset()
    print(f"Runs of {where.uri}: {address_of(host, port)}?token={key}\nStop with Ctrl-C.", flush=True)
    web.run_app(make_app(where, key, names), host=host, port=port, print=None, access_log=None, handle_signals=True)
