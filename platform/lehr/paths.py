"""Where a path of a job is on this machine: a submitted job's working folder lies elsewhere on the cluster."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ROOT = "LEHR_ROOT"
"""Environment variable of a submitted job: the folder that was packaged, as it was called where it came from."""

_WORKING = ""
with suppress(OSError):  # Ray starts every process of a job in its copy of that folder
    _WORKING = os.getcwd()


def packaged_path(path: str) -> str:
    """The path itself, or the packaged copy of what it names.

    A job keeps the paths it was submitted with, so that it stays the same job wherever it runs; only whoever opens one
    asks where it is.
    """
    root = os.environ.get(ROOT)
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        copy = os.path.normpath(os.path.join(_WORKING, os.path.relpath(path, root)))
        if os.path.exists(copy):
            return copy
    return path


def add_to_path(folder: str | os.PathLike[str]) -> None:
    """Lets a job's own modules be imported in this process, from the folder of its file."""
    found = packaged_path(os.fspath(folder))
    if found not in sys.path:
        sys.path.insert(0, found)
