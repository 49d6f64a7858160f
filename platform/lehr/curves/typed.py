"""Advice as it can be typed: with the job file, and with what its user had changed beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from lehr.curves.findings import as_override
from lehr.formatting import format_folder, format_path
from lehr.paths import run_around
from lehr.runs import RunFolder
from lehr.runs.listing import GROUPS

_CHANGES = r"((?: (?:[A-Za-z_][\w.]*=(?:[^\s']*[^\s'.,;])?|'[A-Za-z_][\w.]*=[^']*'))*)"
_COMMAND = re.compile(rf"(?P<loop>for i in [\d ]+; do )?lehr (?P<verb>run|data show) JOB{_CHANGES}")
PARTS = frozenset({*GROUPS, "recipe"})
"""Folders of a run that hold the trainings that it is made of."""


def as_typed(text: str, run: RunFolder) -> str:
    """The text with the job file of a run in place of `JOB`, and with the overrides that the run was started with.

    A run that was named gets another name, since one name is one job. A training whose file is not here (it was begun
    in Python, by `lehr fine-tune` or on a cluster), or that is a part of another run, writes its file first.
    """
    if "JOB" not in text:
        return text
    file = None if _is_part(run) else _job_file(run)
    if file is None and run.job.get("kind", "train") != "train":
        return text
    kept: Mapping[str, object] = {}
    first, shown, named = "", "", False
    if file:
        shown, named = shlex.quote(format_path(file)), bool(run.job.get("name"))
        overrides = run.environment.overrides
        kept = overrides if isinstance(overrides, Mapping) else {}
    else:
        shown = shlex.quote(f"{_name_of(run)}-job.yaml")
        where = shlex.quote(format_folder(run.folder))
        first = f"lehr best {where} {shown} && "

    def typed(found: re.Match[str]) -> str:
        begin = f"{first}{found['loop'] or ''}lehr {found['verb']} {shown}"
        if found["verb"] != "run":
            return begin + found[3]
        paths = [each.partition("=")[0] for each in shlex.split(found[3])]
        own = [as_override(path, value) for path, value in kept.items() if path != "name" and not _set(path, paths)]
        another = shlex.quote(f"{run.name}-2")
        name = [f"name={another}"] if named and "name" not in paths else []
        return " ".join([begin, *own, *([found[3].strip()] if found[3] else []), *name])

    return _COMMAND.sub(typed, text)


def _job_file(run: RunFolder) -> Path | None:
    """The file of a run's job, if it is on this machine."""
    file = run.environment.job_file
    return Path(file) if isinstance(file, str) and file and Path(file).is_file() else None


def _is_part(run: RunFolder) -> bool:
    """Whether the run is a trial, a member or a step of another, whose job file is not its own."""
    if run.folder.is_local:
        return run_around(run.folder.local_path.parent) is not None
    return bool(PARTS.intersection(run.folder.uri.split("/")[-4:-1]))


def _name_of(run: RunFolder) -> str:
    """A name for the file of a run's job: with the name of the run that it is a part of."""
    around = run_around(run.folder.local_path.parent) if run.folder.is_local else None
    return f"{around.name}-{run.name}" if around else run.name


def _set(path: str, others: list[str]) -> bool:
    """Whether another override sets this field, or the whole of which it is a part."""
    return any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in others)
