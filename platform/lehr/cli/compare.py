"""`lehr compare`: several runs on the same axes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Storage, storage_or_default


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more runs: their names, or the paths or URIs of their folders.")
    ],
    storage: Storage = None,
    out: Annotated[Path, typer.Option(help="Folder for compare.html and compare.png.")] = Path("."),
) -> None:
    """Plot the curves of several runs on the same axes.

    Also lists the differences between their jobs.

    Example: lehr compare train train-lr-0.1 --out comparison
    """
    from lehr.curves import write_comparison
    from lehr.result import find

    folders = [find(run, storage_or_default(storage)).record for run in runs]
    for path in write_comparison(folders, out):
        print(path)
