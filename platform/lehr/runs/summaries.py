"""What a list of runs says of each: state, progress and best value."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lehr.runs.entries import OddEntry
from lehr.runs.listing import damage, list_runs
from lehr.runs.run_folder import RunFolder
from lehr.runs.storage import Folder

AT_ONCE = 16  # runs whose files are read at the same time from an object store


def summaries(storage: Folder) -> list[dict[str, Any]]:
    """A row for each run, oldest first, and for each entry that cannot be read, which has the status "unreadable"."""
    listing = list_runs(storage)
    with ThreadPoolExecutor(1 if storage.is_local else AT_ONCE) as pool:
        rows = list(pool.map(_summary, listing.runs))
    return [*rows, *map(_odd, listing.odd)]


def _summary(run: RunFolder) -> dict[str, Any]:
    try:
        status, progress = run.status(), run.progress()
        return {
            "name": run.name,
            "status": status,
            "epochs_done": progress.training.epochs_done if progress.training else None,
            "epochs": progress.training.epochs if progress.training else None,
            "metric": progress.best.metric or None,
            "best": progress.best.value,
            "rows": progress.measured_rows.get("validation"),
            "started": run.started,
            "problem": damage(run) or None,
        }
    except Exception as error:  # whatever its files raise, the other runs are listed
        return _odd(OddEntry(run.name, damage(run) or f"cannot be read: {error}"))


def _odd(entry: OddEntry) -> dict[str, Any]:
    empty = dict.fromkeys(("epochs_done", "epochs", "metric", "best", "rows"))
    return {"name": entry.name, "status": "unreadable", **empty, "started": "", "problem": entry.what}
