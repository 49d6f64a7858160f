"""The runs of a storage folder, with what is odd there."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from lehr.errors import LehrError
from lehr.runs.attempts import newest_number
from lehr.runs.entries import OddEntry, entries
from lehr.runs.progress import outcome_name
from lehr.runs.run_folder import RunFolder
from lehr.runs.storage import Folder

SHOWN = ("environment.json", "progress.json", "outcome.json", "lease.json")
"""Files that a run may lack, and whose damage costs no more than what they would show. (Since format 3 the outcome is
that of the newest attempt.)"""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The runs in a folder, oldest first, and what may be one but cannot be read, by name."""

    runs: tuple[RunFolder, ...]
    odd: tuple[OddEntry, ...]


def list_runs(storage: Folder | str | os.PathLike[str]) -> Listing:
    """What is directly in a storage folder. Raises `StorageError` where the folder itself cannot be listed."""

    def open_run(folder: Folder) -> tuple[str, str, RunFolder]:
        run = RunFolder.open(folder)
        return run.started, run.name, run

    parent = storage if isinstance(storage, Folder) else Folder.at(storage)
    runs, odd = entries(parent, open_run)
    return Listing(tuple(run for _, _, run in sorted(runs, key=lambda found: found[:2])), tuple(odd))


GROUPS = ("members", "trials", "folds")
"""The folders of a run that hold trainings which it is made of; each step of a recipe has one of its own."""


def trainings_in(run: RunFolder) -> list[tuple[str, RunFolder]]:
    """The trainings that a run is made of, each with its path below it (`trials/0003`); none of a single training."""
    groups = (*GROUPS, *(f"recipe/{step}" for step in run.folder.child("recipe").folders()))
    return [(f"{group}/{each.name}", each) for group in groups for each in run.children(group)]


def find_runs(storage: Folder | str | os.PathLike[str]) -> list[RunFolder]:
    """The runs directly in a storage folder, oldest first. What cannot be read as a run is left out and logged."""
    listing = list_runs(storage)
    for entry in listing.odd:
        _LOG.warning("left out: %s", entry)
    return list(listing.runs)


def damage(run: RunFolder) -> str:
    """What is wrong with the files that only show how far a run is, in a sentence; empty for nothing."""
    found = []
    for name in (*SHOWN, *_newest_outcome(run.folder)):
        try:
            if not isinstance(run.folder.read_json(name), dict):
                found.append(f"{name}: is damaged: it is not a mapping")
        except FileNotFoundError:
            continue
        except LehrError as error:
            found.append(str(error).removeprefix(f"{run.folder.uri}/"))
    return "; ".join(found)


def _newest_outcome(folder: Folder) -> list[str]:
    try:
        number = newest_number(folder)
    except LehrError:  # told by whoever reads the attempts
        return []
    return [outcome_name(number)] if number else []
