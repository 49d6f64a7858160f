"""`lehr compare`: several runs on the same axes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import AsJson, Force, Storage, print_json, storage_or_default


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more runs: their names, or the paths or URIs of their folders.")
    ],
    storage: Storage = None,
    out: Annotated[Path, typer.Option(help="Folder for compare.html and compare.png.")] = Path("."),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Plot the curves of several runs on the same axes.

    Also lists the differences between their jobs. Of a search, a recipe or a transfer it is the training that it keeps.
    Runs that were validated on different rows are not ranked. Cross-validations are compared fold by fold.

    Example: lehr compare train train-lr-0.1 --out comparison
    """
    from lehr.curves import comparison
    from lehr.kinds.kept import as_told, kept_training
    from lehr.output import refuse_existing, write_whole
    from lehr.result import find

    page, picture = out / "compare.html", out / "compare.png"
    if not as_json:
        refuse_existing(page, picture, force=force)
    named = [find(run, storage_or_default(storage)).record for run in runs]
    if all(each.job.get("kind") == "folds" for each in named):
        from lehr.folds.compare import as_data, compared

        if as_json:
            print_json(as_data(named))
            return
        text, said = compared(named)
        write_whole(page, text)
        print(*said, page, sep="\n")
        return
    folders = [kept_training(each).run for each in named]
    if as_json:
        print_json([as_told(each, name) for name, each in zip(runs, folders, strict=True)])
        return
    text, drawn, warning = comparison(folders)
    write_whole(page, text)
    write_whole(picture, drawn)
    print(*filter(None, (warning, page, picture)), sep="\n")
