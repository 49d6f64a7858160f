"""What each kind of job does. A new kind is one module here, which defines `KIND`, and one line in `KINDS`."""

from __future__ import annotations

from importlib import import_module

from lehr.driver import Kind, run_with
from lehr.errors import RunError
from lehr.job import Job, told_of_base
from lehr.runs import RunFolder

KINDS = {
    "train": "lehr.kinds.train",
    "folds": "lehr.kinds.folds",
    "search": "lehr.kinds.search",
    "recipe": "lehr.kinds.recipe",
    "ensemble": "lehr.kinds.ensemble",
    "transfer": "lehr.kinds.transfer",
    "predict": "lehr.kinds.predict",
}
"""By name, the module of each kind: imported when it is first used, since most need torch."""


def kind_named(name: str) -> Kind:
    """The kind of this name, one of `KINDS`."""
    kind: Kind = import_module(KINDS[name]).KIND
    return kind


def run_job(
    job: Job,
    *,
    debug: bool = False,
    fresh: bool | str = False,
    started: float | None = None,
    command: str | None = None,
) -> RunFolder:
    """Runs a job to its end and returns its run folder. An unfinished run of the same job is resumed.

    Args:
        debug: in this process and without Ray, so that breakpoints work.
        fresh: deletes what the run of this name left, and starts over; a text does so once, and goes on the next time.
        started: when the command began (`time.time()`).
        command: what runs this job again, for messages; by default the call in Python.

    Raises:
        JobError: the job cannot be run as it is written.
        RunError: the name belongs to another job, or another process holds the run.
        Interrupted: asked to stop; running the job again resumes it.
        LehrError: the job failed; the sentence says why and where the whole trace is.
    """
    with told_of_base(job):
        return run_with(kind_named(job.kind), job, debug=debug, fresh=fresh, started=started, command=command)


def check(job: Job) -> None:
    """Raises JobError for what can be refused before anything is read or started."""
    with told_of_base(job):
        kind_named(job.kind).check(job)


def report_of(run: RunFolder) -> None:
    """Writes a run's `report.html` and pictures again.

    Raises:
        RunError: nothing was recorded yet; or the run is of a kind that is not known here.
    """
    kind = run.job.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = f"kind {kind!r} is unknown; a newer lehr wrote it, or the file is damaged; allowed: {', '.join(KINDS)}"
        raise RunError(f"{run.folder.uri}/job.yaml: {what}")
    kind_named(kind).report(run)
