"""`lehr run`: run a job on this machine."""

from __future__ import annotations

import shlex
import time
from typing import Annotated

import typer


def run(
    job: Annotated[str, typer.Argument(help="The job file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: optimizer.lr=0.05 schedule=linear", show_default=False),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Run in one process, without Ray: breakpoints work.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the earlier run of this name and start over.")] = False,
) -> None:
    """Run a job. A run that was stopped or killed resumes from its last checkpoint.

    Example: lehr run jobs/train.yaml
    Example: lehr run jobs/train.yaml optimizer.lr=0.1 schedule=linear --debug
    """
    started = time.time()
    from lehr.job import load

    loaded = load(job, overrides or ())
    from lehr.kinds import run_job

    command = shlex.join(["lehr", "run", job, *(overrides or ()), *(["--debug"] if debug else [])])
    run_job(loaded, debug=debug, fresh=fresh, started=started, command=command)
