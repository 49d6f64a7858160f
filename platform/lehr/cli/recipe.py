"""`lehr recipe`: run a recipe, or see what it would do."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli import run as run_command
from lehr.cli.options import Debug, Fresh, only_one


def recipe(
    job: Annotated[str, typer.Argument(help="The job file, of kind recipe.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: budget=2h base.model=resnet20", show_default=False),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show the steps and their cost; train nothing.")] = False,
    debug: Debug = False,
    fresh: Fresh = False,
) -> None:
    """Tune a job step by step and train it in full. Same as lehr run, plus --preview.

    Example: lehr recipe jobs/recipe.yaml --preview
    Example: lehr recipe jobs/recipe.yaml budget=2h
    """
    from lehr.errors import JobError
    from lehr.job import load
    from lehr.job.recipe import RecipeJob

    loaded = load(job, overrides or ())
    if not isinstance(loaded, RecipeJob):
        raise JobError(f"a job of kind {loaded.kind}; allowed: kind: recipe", where=job)
    if preview and (debug or fresh):
        only_one("--debug" if debug else "--fresh", "--preview", "nothing is trained")
    if not preview:
        run_command.run(job, overrides, debug=debug, fresh=fresh)
        return
    from rich.table import Table

    from lehr.formatting import count_of
    from lehr.kinds import check
    from lehr.own_modules import look_in
    from lehr.recipe.preview import preview as preview_rows
    from lehr.recipe.preview import rows_to_train_on
    from lehr.screen import console

    look_in(loaded.folder)
    check(loaded)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("step", "what it does", "what it costs"):
        table.add_column(name)
    rows = rows_to_train_on(loaded)
    for row in preview_rows(loaded, rows):
        table.add_row(*row)
    shown = console()
    shown.print(table)
    if rows is not None:
        shown.print(f"{count_of(rows, 'training image')}, in batches of {loaded.base.train.batch_size}.")
    shown.print(f"Budget: {loaded.budget}. The recipe ends earlier if nothing improves or a step fails.")
