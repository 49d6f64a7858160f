"""Where Ray keeps its files while a job runs: not part of the run, and deleted with the process that asked for it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lehr.errors import LehrError
from lehr.processes import Process, is_running, this_process
from lehr.runs.storage import Folder

_NAME = re.compile(r"lehr-ray-(\d+-\w+-\w+)-.*")


@contextmanager
def scratch(run: Folder, *, on_every_node: bool = False) -> Iterator[str]:
    """A temporary folder while a job runs: on this machine's disk, or in the run folder where other machines need it.

    Args:
        on_every_node: other machines must reach it although the run folder is a path: they share its file system.
    """
    if run.is_local and not on_every_node:
        with tempfile.TemporaryDirectory(prefix=f"lehr-ray-{this_process()}-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    remote = run.scratch()
    try:
        yield remote.uri
    finally:
        with suppress(LehrError):  # only tidiness
            remote.delete_all()


def clear_scratch() -> None:
    """Deletes what killed processes left among the temporary files; what others in a shared folder left is theirs."""
    for folder in Path(tempfile.gettempdir()).glob("lehr-ray-*"):
        match = _NAME.fullmatch(folder.name)
        owner = match and Process.parse(match[1])
        if owner and not is_running(owner):
            shutil.rmtree(folder, ignore_errors=True)
