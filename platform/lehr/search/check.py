"""What is wrong with a search job is refused before anything starts."""

from __future__ import annotations

from lehr.errors import JobError
from lehr.job import derive, refuse_unused
from lehr.job.search import SearchJob
from lehr.search.combinations import grid_combinations, max_trials
from lehr.search.formats import format_value
from lehr.search.space import Space
from lehr.training.setup import check_job, complete_base

LARGEST_GRID = 10_000


def check_search(job: SearchJob) -> None:
    """Tries every listed value, and both ends of every range, in the base job.

    Raises:
        JobError: the space is empty, names a field that the job does not have or a value that is not valid for it, or
            is a grid larger than the budget.
    """
    space = Space(job)
    if not job.space:
        what = "is empty; allowed: fields of the job and their values, such as optimizer.lr: {log_uniform: [0.001, 1]}"
        raise job.error("space", what)
    refuse_unused(job)
    complete_base(job, job.base)
    check_job(derive(job.base, {}, parent=job, name="trial"))
    for path, dimension in job.space.items():
        needed = {
            field: value[0] if isinstance(value, list) else value for field, value in (dimension.when or {}).items()
        }
        for value in dimension.values or dimension.ends:
            try:
                check_job(derive(job.base, {**needed, path: value}, parent=job, name="trial"))
            except JobError as error:
                about = "" if error.field == path else f"{error.field}: "
                raise space.error(path, f"{format_value(value)}: {about}{error.what}") from None
    if job.method == "grid":
        if (size := space.grid_size()) > LARGEST_GRID:
            raise job.error("space", f"the grid has {size:,} combinations; use fewer values, or method: random")
        max_trials(job, grid_combinations(space))
