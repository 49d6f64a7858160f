"""Where the paths of a job are on this machine: on a cluster, the job's folder is a copy in another place."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

ROOT = "LEHR_ROOT"
"""Environment variable of a submitted job: the path that the packaged folder had on the machine it came from."""

_WORKING = ""
with suppress(OSError):  # Ray starts every process of a job in its copy of the packaged folder
    _WORKING = os.getcwd()


def packaged_path(path: str) -> str:
    """The path itself, or that of the packaged copy.

    A job keeps the paths that it was submitted with, so that it is the same job wherever it runs; only the code that
    opens a file asks where the file is.
    """
    root = os.environ.get(ROOT)
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        copy = os.path.normpath(os.path.join(_WORKING, os.path.relpath(path, root)))
        if os.path.exists(copy):
            return copy
    return path


def user_folder() -> Path:
    """What lehr keeps for this user on this machine: LEHR_STATE, else ~/.lehr."""
    return Path(os.environ.get("LEHR_STATE") or "~/.lehr").expanduser()


def run_around(path: str | os.PathLike[str]) -> Path | None:
    """The run folder that a file or folder lies in, or is, if any. A run folder has a `job.yaml` with a format."""
    for folder in (Path(path), *Path(path).parents):
        try:
            with (folder / "job.yaml").open("rb") as job:
                if re.search(rb"""(?m)(^|[{,])\s*["']?format["']?\s*:""", job.read(1_000_000)):
                    return folder
        except OSError:
            continue
    return None


def add_to_path(folder: str | os.PathLike[str]) -> None:
    """Lets this process import the job's own modules from the folder of its file, if that is no run folder.

    A run folder is data that somebody else may have written: a module in it could take the place of any other.
    """
    found = packaged_path(os.fspath(folder))
    if found not in sys.path and not run_around(found):
        sys.path.insert(0, found)
