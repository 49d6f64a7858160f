"""Where a command that answers over HTTP listens, and the address under which it is reached."""

from __future__ import annotations

import errno
import socket

from lehr.errors import JobError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def address_of(host: str, port: int) -> str:
    """What a person types on this machine to reach a server that listens there."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    return f"http://{name}:{port}/"


def refuse_taken(host: str, port: int) -> None:
    """Raises JobError if nothing can listen there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        raise _no_address(host) from None
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise _no_address(host) from None
            what = f"{port} cannot be listened on ({error.strerror}); choose another: --port {port % 65535 + 1}"
            raise JobError(what, field="--port") from None


def _no_address(host: str) -> JobError:
    return JobError(f'"{host}" is no address of this machine; allowed: 127.0.0.1, 0.0.0.0', field="--host")
