"""What is in a folder that holds runs, entry by entry. An odd entry never hides the others: it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from lehr.errors import LehrError, RunError, StorageError
from lehr.printing import one_line
from lehr.runs.storage import Folder

AT_ONCE = 16  # entries of an object store that are looked at at the same time

_Run = TypeVar("_Run")


@dataclass(frozen=True)
class OddEntry:
    """What may be a run but cannot be read as one.

    Attributes:
        name: as the folder has it; it may hold any character.
        what: what is wrong with it, in a sentence without its name.
    """

    name: str
    what: str

    def __str__(self) -> str:
        return one_line(f"{self.name}: {self.what}")


def entries(parent: Folder, open_run: Callable[[Folder], _Run]) -> tuple[list[_Run], list[OddEntry]]:
    """The runs directly in a folder as `open_run` opens them, and what may be one but cannot be read; both by name.

    Raises `StorageError` where the folder itself cannot be listed.
    """

    def look(name: str) -> list[_Run] | OddEntry:
        return _look(parent, name, open_run)

    with ThreadPoolExecutor(1 if parent.is_local else AT_ONCE) as pool:
        found = list(pool.map(look, parent.folders()))
    odd = [each for each in found if isinstance(each, OddEntry)]
    return [run for each in found if isinstance(each, list) for run in each], odd


def _look(parent: Folder, name: str, open_run: Callable[[Folder], _Run]) -> list[_Run] | OddEntry:
    """The run of this name, or what is wrong with the entry; an empty list for what is no run."""
    try:
        folder = parent.child(name)
    except RunError:
        return OddEntry(name, "a folder of this name cannot be a run; rename it")
    try:
        return [open_run(folder)] if _may_be_run(folder) else []
    except LehrError as error:
        return OddEntry(name, str(error).removeprefix(folder.uri).lstrip("/: "))
    except Exception as error:  # whatever else reading it raises, the others are listed
        return OddEntry(name, f"cannot be read: {type(error).__name__}: {error}")


def _may_be_run(folder: Folder) -> bool:
    """Whether it holds a job.yaml of any sort, or hides what it holds. Raises `StorageError` for a link to nothing."""
    if folder.exists("job.yaml"):
        return True
    if not folder.is_local:
        return False
    path = folder.local_path
    for link, name in ((path, ""), (path / "job.yaml", "/job.yaml")):
        if os.path.islink(link) and not os.path.exists(link):
            raise StorageError(f"{folder.uri}{name}: is a link that leads to nothing")
    return path.is_dir() and not os.access(path, os.R_OK | os.X_OK)
