"""`lehr logs`: what a job on a cluster has printed."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted


def logs(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job on a cluster has printed."""
    from lehr.submission.backend import changes_of

    jobs = connect(cluster, kubernetes)
    submission = submitted(jobs, run)
    if not follow:
        print(jobs.logs(submission), end="")
        return
    for _, text in changes_of(jobs, submission):
        print(text, end="", flush=True)
