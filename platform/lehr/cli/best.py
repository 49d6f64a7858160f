"""`lehr best`: the best trial of a search as a job file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import AsJson, Force, RunName, Storage, Trust, only_one, print_json, storage_or_default


def best(
    run: RunName,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write it. By default it is printed.", show_default=False)
    ] = None,
    storage: Storage = None,
    trust: Trust = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write the best trial of a search, or what a recipe or a transfer keeps, as a job file, ready to train longer.

    Whatever a job file names may run, so one that names the code of a run needs --trust.

    Example: lehr best search-grid best.yaml
    Example: lehr best theirs/search best.yaml --trust theirs/search
    """
    from dataclasses import asdict

    import yaml

    from lehr.kinds.kept import kept_job, kept_training
    from lehr.output import refuse_existing, write_whole
    from lehr.result import find, trust_all

    if file is not None and as_json:
        only_one("--json", "a file", "the job is printed")
    if file is not None:
        refuse_existing(file, force=force)
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage)).record
    text = kept_job(found)
    if as_json:
        kept = kept_training(found)
        best = (kept.run.outcome() or kept.run.progress()).best
        print_json({"run": kept.folder, "best": asdict(best), "job": yaml.safe_load(text)})
        return
    if file is None:
        print(text, end="")
        return
    write_whole(file, text)
    print(f"Wrote {file}. Train it: lehr run {shlex.quote(str(file))}")
