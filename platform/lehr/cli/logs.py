"""`lehr logs`: the output of a job on a cluster."""

from __future__ import annotations

import sys
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
        text, current = jobs.logs(submission), jobs.get(submission)
        print(text, end="")
        if current.why or not text:
            say = current.why or "nothing was printed yet"
            print(f"{current.run} is {current.status}: {say}", file=sys.stderr)
        return
    told = ""
    for current, text in poll(jobs, submission):
        print(text, end="", flush=True)
        if current.why != told and (told := current.why):
            print(f"{current.run} is {current.status}: {told}", file=sys.stderr, flush=True)
