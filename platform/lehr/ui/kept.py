"""What an earlier `lehr ui` of this user has read, so that ten thousand runs are shown at once when it starts again.

Only of runs that have ended, each with the sign of its folder: one whose folder changed is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lehr.paths import user_folder

FORM = 1  # of a row; another number is not read
FEWEST = 200  # runs from which on reading them again takes time
Sign = tuple[int, ...]
Kept = dict[str, tuple[Sign, dict[str, Any]]]


def file_of(uri: str) -> Path:
    """Where the rows of a storage folder are kept."""
    return user_folder() / "ui" / f"{hashlib.sha256(uri.encode()).hexdigest()[:32]}.json"


def read(uri: str) -> Kept:
    """By name: the sign of a run's folder and its row; nothing where there is no such file, or a damaged one."""
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        found = json.loads(file_of(uri).read_bytes())
        if found["form"] == FORM and found["uri"] == uri:
            return {name: (tuple(sign), {**row, "version": 0}) for name, (sign, row) in found["rows"].items()}
    return {}


def write(uri: str, rows: Kept) -> None:
    """Keeps the rows; where they cannot be written they are not kept."""
    if len(rows) < FEWEST:
        return
    target = file_of(uri)
    new = target.with_suffix(f".{os.getpid()}.new")
    with suppress(OSError):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text(json.dumps({"form": FORM, "uri": uri, "rows": rows}))
        new.replace(target)
