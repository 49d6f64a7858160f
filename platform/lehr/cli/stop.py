"""`lehr stop`: end a job on a cluster, with a checkpoint."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, going_on, submitted
from lehr.errors import LehrError

GRACE_SECONDS = 30  # beyond what the job was given for saving


def stop(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has saved and ended.")] = True,
) -> None:
    """End a job on a cluster; it saves a checkpoint first, and goes on from there with lehr resume."""
    jobs = connect(cluster, kubernetes)
    submission = submitted(jobs, run)
    run = submission.run
    if submission.is_over:
        print(f"{run} is {submission.status} already.")
        return
    jobs.stop(submission)
    if not wait:
        print(f"{run} was asked to save and end.")
        return
    allowed = submission.request.stop_wait if submission.request else 0
    deadline = time.monotonic() + allowed + GRACE_SECONDS
    while not jobs.get(submission).is_over:
        if time.monotonic() > deadline:
            raise LehrError(f"{run} has not ended in {allowed + GRACE_SECONDS} s; look at: lehr logs {run}")
        time.sleep(0.5)
    said = [line for line in jobs.logs(submission).splitlines() if line.startswith(("Stopped ", "Ended "))]
    print(said[-1] if said else f"{run} has ended. Go on with: {going_on(run, kubernetes)}")
