"""Mistakes in a job that no machine could run, found where it is submitted, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator

from lehr.errors import JobError, LehrError
from lehr.job import Job
from lehr.own_modules import look_in


def refuse_mistakes(job: Job) -> str:
    """Checks a job as `lehr check` does, as far as this machine can tell.

    Libraries, weights and runs may be on the cluster alone, so what is missing of them here is left to the check there.

    Returns:
        What was left to the cluster, as a sentence; empty if everything could be checked.

    Raises:
        JobError: the job cannot be run as it is written, wherever it runs.
    """
    from lehr.kinds import check  # imports torch, which takes a second

    look_in(job.folder)
    try:
        check(job)
    except JobError as error:
        if not _may_be_there(error):
            raise
        return f"Not checked here, where it would fail ({error})."
    except LehrError as error:  # the user's own code, whose libraries may be on the cluster
        return f"Not checked here, where it would fail ({error})."
    return ""


def _may_be_there(error: JobError) -> bool:
    """Whether what is missing here may be on the cluster."""
    if error.field.rpartition(".")[2] in ("weights", "backbone"):
        return True
    return any(isinstance(cause, ImportError | OSError | LehrError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from or within, but for itself."""
    seen = {id(error)}
    while (error := error.__cause__ or error.__context__) and id(error) not in seen:  # type: ignore[assignment]
        seen.add(id(error))
        yield error
