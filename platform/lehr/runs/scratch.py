"""Where Ray keeps its files while a job runs: not part of the run, and deleted with the process that asked for it."""

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
    """A temporary folder while a job runs: on this machine's disk, or in the run folder where other machines need it.

    Args:
        on_every_node: other machines must reach it although the run folder is a path: they share its file system.
    """
    if run.is_local and not on_every_node:
        owner = f"{os.getpid()}-{process_started(os.getpid())}"
        with tempfile.TemporaryDirectory(prefix=f"lehr-ray-{owner}-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    remote = run.scratch()
    try:
        yield remote.uri
    finally:
        with suppress(LehrError):  # only tidiness
            remote.delete_all()


def clear_scratch() -> None:
    """Deletes what killed processes left on this machine's disk."""
    for folder in Path(tempfile.gettempdir()).glob("lehr-ray-*"):
        match = _NAME.fullmatch(folder.name)
        if match and not is_running(int(match[1]), None if match[2] == "None" else int(match[2])):
            shutil.rmtree(folder, ignore_errors=True)
