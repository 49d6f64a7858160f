"""`lehr logs`: the output of a job on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted


def logs(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the job ends.")] = False,
) -> None:
    """Print the output of a job on a cluster.

    Example: lehr logs digits --follow
    """
    from lehr.submission.backend import poll

    jobs = connect(cluster, kubernetes)
    submission = submitted(jobs, run)
    if not follow:
        print(jobs.logs(submission), end="")
        return
    for _, text in poll(jobs, submission):
        print(text, end="", flush=True)
