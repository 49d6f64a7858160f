"""`lehr compare`: several runs on the same axes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Force, Storage, storage_or_default


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more runs: their names, or the paths or URIs of their folders.")
    ],
    storage: Storage = None,
    out: Annotated[Path, typer.Option(help="Folder for compare.html and compare.png.")] = Path("."),
    force: Force = False,
) -> None:
    """Plot the curves of several runs on the same axes.

    Also lists the differences between their jobs. Runs that were validated on different rows are not ranked.

    Example: lehr compare train train-lr-0.1 --out comparison
    """
    from lehr.curves import comparison
    from lehr.output import refuse_existing, write_whole
    from lehr.result import find

    page, picture = out / "compare.html", out / "compare.png"
    refuse_existing(page, picture, force=force)
    folders = [find(run, storage_or_default(storage)).record for run in runs]
    text, drawn, warning = comparison(folders)
    write_whole(page, text)
    write_whole(picture, drawn)
    print(*filter(None, (warning, page, picture)), sep="\n")
