"""Where Ray keeps what it needs while a job runs: no part of the run, and gone with the process that asked for it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lehr.errors import LehrError

from lehr.runs.lease import is_running, process_started
from lehr.runs.storage import Folder

_NAME = re.compile(r"lehr-ray-(\d+)-(\d+|None)-.*")


@contextmanager
def scratch(run: Folder, *, on_every_node: bool = False) -> Iterator[str]:
    """A place for the length of a job: on this machine's disk, or in the run folder, where other machines see it.

    Args:
        on_every_node: other machines must see it, though the run folder is a path: of a file system they share.
    """
    if run.is_local and not on_every_node:
        owner = f"{os.getpid()}-{process_started(os.getpid())}"
        with tempfile.TemporaryDirectory(prefix=f"lehr-ray-{owner}-", ignore_cleanup_errors=True) as place:
            yield place
        return
    remote = run.scratch()
    try:
        yield remote.uri
    finally:
        with suppress(LehrError):  # only tidiness
            remote.delete_all()


def clear_scratch() -> None:
    """Removes what killed processes left on this machine's disk."""
    for place in Path(tempfile.gettempdir()).glob("lehr-ray-*"):
        match = _NAME.fullmatch(place.name)
        if match and not is_running(int(match[1]), None if match[2] == "None" else int(match[2])):
            shutil.rmtree(place, ignore_errors=True)
