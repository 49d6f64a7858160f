"""`lehr check`: whether a cluster has what a job needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Cluster, ray_cluster
from lehr.errors import LehrError

WAIT_SECONDS = 120.0


def check(
    job: Annotated[str, typer.Argument(help="The job file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: workers=4 storage=s3://…", show_default=False),
    ] = None,
    cluster: Cluster = None,
    folder: Annotated[
        Path | None, typer.Option(help="The folder that would be sent; see lehr submit.", show_default=False)
    ] = None,
) -> None:
    """Look a cluster over for a job, without running it: what is missing, why it matters, what to do."""
    started = time.monotonic()
    from lehr.cli.submit import ended
    from lehr.job import load
    from lehr.submission.backend import changes_of
    from lehr.submission.check import CHECKED, FINDING
    from lehr.submission.submit import package_of, request_of, working_folder

    loaded = load(job, overrides or ())
    root = working_folder(loaded, folder)
    jobs = ray_cluster(cluster)
    jobs.package = lambda: package_of(loaded, root)
    submission = jobs.submit(request_of(loaded, root, only_check=True))
    text, current = "", submission
    try:
        for current, more in changes_of(jobs, submission, every=0.2):  # noqa: B007
            text += more
            if CHECKED in text:
                break  # it ends by itself
            if time.monotonic() - started > WAIT_SECONDS:
                raise LehrError(f"{jobs.address} has not looked itself over in {WAIT_SECONDS:.0f} s; is it very busy?")
    finally:
        if CHECKED not in text and not current.is_over:
            jobs.stop(current)
    if CHECKED not in text:
        raise ended(current, text)
    found = [line for line in text.splitlines() if line.startswith(FINDING)]
    print("\n".join(found) or "Nothing found: the job can run there.")
    print(f"Checked {jobs.address} in {time.monotonic() - started:.1f} s.")
    if any(line.startswith(FINDING[0]) for line in found):
        raise typer.Exit(1)
