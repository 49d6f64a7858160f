"""`notify`: the address that is told how a job ended."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lehr.credentials import has_credentials
from lehr.job.text import show

ENVIRONMENT = "env:"
ALLOWED = "allowed: an address (https://…), or env:NAME, an environment variable that holds one"


def problem_of(address: str) -> str:
    """What is wrong with an address, without showing it; empty if nothing is."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not address.isascii() or re.search(r"[\s\x00-\x20\x7f]", address):
        return "holds no address of the form https://…"
    return ""


def notify_reference(value: str) -> str:
    """What a job says of where its end is told. Raises ValueError for what is no address, or holds a secret."""
    if re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value):
        return value
    if value.startswith(ENVIRONMENT) or problem_of(value):
        known = "" if has_credentials(value) else f"{show(value)} "
        raise ValueError(f"{known}is no address to tell; {ALLOWED}")
    if has_credentials(value):
        what = "this address is a secret, or holds one, and would stay in the run folder"
        raise ValueError(f"{what}; type notify=env:NOTIFY_URL, after: export NOTIFY_URL=…")
    return value


def host_of(address: str) -> str:
    """What sentences show of an address: the path of a webhook is often its password."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
