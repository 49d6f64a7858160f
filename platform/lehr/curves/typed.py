"""Advice as it can be typed: with the job file, and with what its user had changed beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from lehr.curves.findings import as_override
from lehr.formatting import format_path
from lehr.runs import RunFolder

_RUN = re.compile(r"lehr run JOB((?: (?:[A-Za-z_][\w.]*=(?:[^\s']*[^\s'.,;])?|'[A-Za-z_][\w.]*=[^']*'))*)")


def as_typed(text: str, run: RunFolder) -> str:
    """The text with the job file of a run in place of `JOB`, and with the overrides that the run was started with.

    A run that was named gets another name, since one name is one job. Where the file is not known here, it stays `JOB`.
    """
    environment = run.environment
    file = environment.job_file
    if not isinstance(file, str) or not file or not Path(file).is_file():
        return text
    shown = shlex.quote(format_path(Path(file)))
    kept = environment.overrides if isinstance(environment.overrides, Mapping) else {}
    named = bool(run.job.get("name"))

    def typed(found: re.Match[str]) -> str:
        paths = [each.partition("=")[0] for each in shlex.split(found[1])]
        own = [as_override(path, value) for path, value in kept.items() if path != "name" and not _set(path, paths)]
        another = shlex.quote(f"{run.name}-2")
        name = [f"name={another}"] if named and "name" not in paths else []
        return " ".join(["lehr run", shown, *own, *([found[1].strip()] if found[1] else []), *name])

    return _RUN.sub(typed, text).replace("lehr data show JOB", f"lehr data show {shown}")


def _set(path: str, others: list[str]) -> bool:
    """Whether another override sets this field, or the whole of which it is a part."""
    return any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in others)
