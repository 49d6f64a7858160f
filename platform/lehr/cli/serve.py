"""`lehr serve`: a run behind HTTP, with a page to drop an image on."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from lehr.cli.listening import LOOPBACK, address_of, refuse_taken
from lehr.cli.options import RunName, Storage, Trust, storage_or_default
from lehr.errors import LehrError
from lehr.formatting import format_path


def serve(
    run: RunName,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine, with a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="LEHR_SERVE_TOKEN",
            help="What requests must bring. [default: none on this machine alone, else a random one]",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="How many processes answer, each with the whole model.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass, at most.")] = 32,
    wait: Annotated[float, typer.Option(min=0, help="How long an image waits for others to share a pass, in ms.")] = 5,
    storage: Storage = None,
    trust: Trust = None,
) -> None:
    """Answer over HTTP what a run says of images: GET / is a page to drop images on, POST /predict is for programs.

    Images of requests that come together share a forward pass. All members of an ensemble answer together. Needs
    pip install 'lehr[serve]'.

    Example: lehr serve train
    Example: lehr serve snapshot-ensemble --host 0.0.0.0 --replicas 2
    """
    refuse_taken(host, port)
    _needs("fastapi", "uvicorn", "multipart")
    from lehr.machine import cores
    from lehr.own_modules import look_in
    from lehr.paths import user_folder
    from lehr.predict import load_predictor
    from lehr.result import find, trust_all
    from lehr.screen import quiet
    from lehr.trust import grants

    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    predictor = load_predictor(found.record.folder)  # so that what is wrong with it is said at once
    token = secrets.token_urlsafe(16) if token is None and host not in LOOPBACK else token or ""
    log = user_folder() / f"serve-{port}.log"
    os.environ.update(RAY_enable_metrics_collection="1")  # which a Ray of a job does without
    with quiet(log) as screen:
        print(f"Serving {found.name}, {len(predictor.classes)} classes: starting Ray", file=screen)
        from lehr.ray_cluster.connection import connect
        from lehr.serving.ray_serve import ServeSpec, start, stop

        threads = max(1, cores() // replicas)
        spec = ServeSpec(
            found.record.folder, found.name, token, batch_size, wait / 1000, threads, str(Path.cwd()), grants()
        )
        with connect(replicas, 1) as there, _until_stopped() as ended:
            start(spec, host, port, replicas, there.gpus / replicas)
            print(
                _where(host, port, token), f"Log:       {format_path(log)}", "Stop with Ctrl-C.", sep="\n", file=screen
            )
            ended.wait()
            print("Stopping: requests that are being answered end first", file=screen)
            stop()


@contextmanager
def _until_stopped() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set; a second one ends everything at once."""
    ended = Event()

    def on_signal(number: int, _: object) -> None:
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _where(host: str, port: int, token: str) -> str:
    """Where the server is found, as what a person types."""
    address = address_of(host, port)
    bearer = f"-H 'Authorization: Bearer {token}' " if token else ""
    return (
        f"Page:      {address}{f'?token={token}' if token else ''}\n"
        f"Programs:  curl {bearer}-F file=@photo.jpg {address}predict\n"
        f"Also:      {address}openapi.json, {address}health, {address}metrics"
    )


def _needs(*modules: str) -> None:
    from importlib.util import find_spec

    from lehr.extras import install

    if missing := [name for name in modules if find_spec(name) is None]:
        raise LehrError(f"lehr serve needs {', '.join(missing)}; type: {install('serve')}")
