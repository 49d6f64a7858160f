"""Images at addresses of the web, each fetched when it is read. One that is not there is an unreadable image."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lehr.data.labels import NO_LABEL
from lehr.errors import LehrError

SCHEMES = ("http://", "https://")
MOST_BYTES = 1 << 30
TIMEOUT_SECONDS, TRIES, WAIT_SECONDS = 30, 3, 0.5
AT_ONCE = 16
LATER = (408, 425, 429)
"""Answers below 500 that a second try may change."""


@dataclass(frozen=True)
class WebPart:
    """Some images by their addresses."""

    addresses: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.addresses)

    def labels(self) -> np.ndarray:
        return np.full(len(self.addresses), NO_LABEL, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        chosen = self.addresses if rows is None else [self.addresses[row] for row in rows]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return pa.table({"image": pa.array(list(pool.map(fetch, chosen)), pa.large_binary())})

    def name(self, row: int) -> str:
        return self.addresses[row]


def fetch(address: str) -> bytes:
    """What is at an address; nothing where the server has no such file, or more than an image.

    Raises:
        LehrError: the server cannot be reached, or fails each time.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with _OPENER.open(address, timeout=TIMEOUT_SECONDS) as answer:
                found: bytes = answer.read(MOST_BYTES + 1)
                return found if len(found) <= MOST_BYTES else b""
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in LATER:
                return b""
            problem = f"its server answers {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            problem = str(reason).splitlines()[0] if str(reason) else type(error).__name__
        if attempt < TRIES:
            time.sleep(WAIT_SECONDS * 2**attempt)
    raise LehrError(f"data: {address} cannot be fetched: {problem}")


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows an address only to one of the web, never to a file of this machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if not newurl.lower().startswith(SCHEMES):
            raise urllib.error.HTTPError(newurl, 404, "leads away from the web", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_OnlyWeb)
_OPENER.addheaders = [("User-Agent", "lehr")]
