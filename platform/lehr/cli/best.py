"""`lehr best`: the best trial of a search as a job file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Force, RunName, Storage, Trust, storage_or_default


def best(
    run: RunName,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write it. By default it is printed.", show_default=False)
    ] = None,
    storage: Storage = None,
    trust: Trust = None,
    force: Force = False,
) -> None:
    """Write the best trial of a search as a job file, ready to train longer.

    Whatever a job file names may run, so one that names the code of a run needs --trust.

    Example: lehr best search-grid best.yaml
    Example: lehr best theirs/search best.yaml --trust theirs/search
    """
    from lehr.output import refuse_existing, write_whole
    from lehr.result import find, trust_all
    from lehr.search.winner import winning_job

    if file is not None:
        refuse_existing(file, force=force)
    trust_all(trust or (), storage_or_default(storage))
    text = winning_job(find(run, storage_or_default(storage)).record)
    if file is None:
        print(text, end="")
        return
    write_whole(file, text)
    print(f"Wrote {file}. Train it: lehr run {file}")
