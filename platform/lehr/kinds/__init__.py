"""What each kind of job does. A new kind is one module here and one line in `KINDS`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from lehr.errors import RunError
from lehr.job import Job
from lehr.runs import RunFolder

KINDS = {
    "train": "lehr.kinds.train",
    "search": "lehr.kinds.search",
    "recipe": "lehr.kinds.recipe",
    "ensemble": "lehr.kinds.ensemble",
    "transfer": "lehr.kinds.transfer",
    "predict": "lehr.kinds.predict",
}


def kind_of(job: Job) -> ModuleType:
    """The module of this kind of job: `check(job)`, `run(running)` and `report(run)`; see `lehr.kinds.train`."""
    return import_module(KINDS[job.kind])


def report_of(run: RunFolder) -> None:
    """Writes a run's `report.html` and pictures anew.

    Raises:
        RunError: nothing was recorded yet; or the run is of a kind that is not known here.
    """
    kind = run.job.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = f"kind {kind!r} is unknown; a newer lehr wrote it, or the file is damaged; allowed: {', '.join(KINDS)}"
        raise RunError(f"{run.folder.uri}/job.yaml: {what}")
    import_module(KINDS[kind]).report(run)
