"""The fine-tuning of a folder of photographs: the run that there is of it, else the job for a new one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lehr.errors import LehrError
from lehr.formatting import format_folder
from lehr.job import Job, TrainJob, TransferJob, absolute, default_name
from lehr.paths import default_storage
from lehr.photos import is_changed, photo_job
from lehr.result import find, stored_job
from lehr.runs import RunFolder


def run_or_job(
    photos: str,
    changes: Mapping[str, Any],
    minutes: float | None = None,
    *,
    fresh: bool = False,
    again: str = "lehr fine-tune",
    imports: float = 4.0,
    start_over: str = "add --fresh",
    say: Callable[[str], None] = print,
) -> tuple[RunFolder | None, Job]:
    """The run on these photographs with the same changes, if there is one, and its job, else a new one.

    Args:
        photos: a folder with a folder of photographs for each class.
        changes: to the job, by dotted path as they are typed.
        minutes: that it may take; None: what the photographs want, up to 10.
        fresh: make a new job, whose run has the same name.
        again: the command and its folder, for what to type.
        imports: seconds that this process took to import torch and the like.
        start_over: what to do for that, in a sentence.
        say: hears what was understood and decided.

    Raises:
        JobError: the folder holds no classes, or a change cannot be had.
        LehrError: weights that the user names cannot be had.
    """
    name = run_name(photos, minutes, changes)
    known = None if fresh else earlier(photos, name, str(changes.get("storage") or default_storage()), changes)
    if known:
        if known[0].status() != "finished":
            say(f"Going on with {format_folder(known[0].folder)}, as it was planned; to start over, {start_over}")
        return known
    if fresh:
        changes = {"name": name, **changes}  # so that the run of this name makes room
    return None, photo_job(photos, changes, minutes, named=name, again=again, imports=imports, say=say).job


def run_name(photos: str, minutes: float | None, changes: Mapping[str, object]) -> str:
    """The name of the run: that of the folder, with the minutes, if they are said, and the changes."""
    stem = Path(re.sub(r"^[a-z0-9]+://", "", photos.rstrip("/")) or photos).resolve().name
    return default_name(stem + (f"-{minutes:g}min" if minutes else ""), changes)


def earlier(photos: str, name: str, storage: str, changes: Mapping[str, object]) -> tuple[RunFolder, Job] | None:
    """The run on these photographs with the same changes, and its job; None where there is none.

    A run on other photographs may have the name; then that of this one ends in `-2`, `-3`, ….
    """
    root = f"{absolute(photos, Path.cwd()).rstrip('/')}/"
    own = {field: value for field, value in changes.items() if field not in ("name", "storage")}
    for number in count(1):
        named = str(changes.get("name") or (name if number == 1 else f"{name}-{number}"))
        try:
            found = find(named, storage).record
        except LehrError:
            return None
        job = stored_job(named, storage)
        training = job.base if isinstance(job, TransferJob) else job if isinstance(job, TrainJob) else None
        path = training.data.path if training else None
        if path and f"{path}/".startswith(root) and not is_changed(job, own):
            return found, job
        if "name" in changes:
            return None
    raise AssertionError("unreachable")
