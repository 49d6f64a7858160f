"""What can be refused of a search is refused before it starts."""

from __future__ import annotations

from lehr.errors import JobError
from lehr.job import derive
from lehr.job.search import SearchJob
from lehr.search.space import Space, label
from lehr.search.study import combinations, most_trials
from lehr.training.setup import check_job

LARGEST_GRID = 10_000


def check_search(job: SearchJob) -> None:
    """Tries every value that is said one by one, and the ends of every range.

    Raises:
        JobError: nothing to search, a path that is not in the job, a value that it refuses, or a grid larger than the
            budget.
    """
    space = Space(job)
    if not job.space:
        what = "is empty; allowed: fields of the job and their values, such as optimizer.lr: {log_uniform: [0.001, 1]}"
        raise job.error("space", what)
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
                raise space.error(path, f"{label(value)}: {about}{error.what}") from None
    if job.method == "grid":
        if (size := space.grid_size()) > LARGEST_GRID:
            raise job.error("space", f"the grid has {size:,} combinations; take fewer values, or method: random")
        most_trials(job, combinations(space))
