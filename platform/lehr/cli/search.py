"""`lehr search`: run a hyperparameter search, or see what it would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli import run as run_command
from lehr.cli.options import Debug, Fresh, only_one


def search(
    job: Annotated[str, typer.Argument(help="The job file, of kind search.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: budget.trials=32 base.train.epochs=9", show_default=False),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the trials, rungs, epochs and time; train nothing.")
    ] = False,
    debug: Debug = False,
    fresh: Fresh = False,
) -> None:
    """Search for good values of a job's fields. Same as lehr run, plus --preview.

    Example: lehr search jobs/search-grid.yaml --preview
    Example: lehr search jobs/search-random-asha.yaml budget.trials=32
    """
    from lehr.errors import JobError
    from lehr.job import load
    from lehr.job.search import SearchJob

    loaded = load(job, overrides or ())
    if not isinstance(loaded, SearchJob):
        raise JobError(f"a job of kind {loaded.kind}; allowed: kind: search", where=job)
    if preview and (debug or fresh):
        only_one("--debug" if debug else "--fresh", "--preview", "nothing is trained")
    if not preview:
        run_command.run(job, overrides, debug=debug, fresh=fresh)
        return
    from lehr.kinds import check
    from lehr.own_modules import look_in
    from lehr.search.preview import preview as preview_lines

    look_in(loaded.folder)
    check(loaded)
    for line in preview_lines(loaded):
        print(line)
