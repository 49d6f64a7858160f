"""`lehr stop`: stop a job on a cluster, with a checkpoint."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted
from lehr.errors import LehrError

GRACE_SECONDS = 30  # in addition to what the job was given for saving


def stop(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has saved a checkpoint and ended.")] = True,
) -> None:
    """Save a checkpoint of a job on a cluster and stop it.

    lehr resume resumes it from that checkpoint.

    Example: lehr stop digits
    """
    from lehr.submission.backend import command, resume_command

    jobs = connect(cluster, kubernetes)
    submission = submitted(jobs, run)
    run = submission.run
    if submission.is_over:
        print(f"{run} is already {submission.status}.")
        return
    jobs.stop(submission)
    if not wait:
        print(f"{run} was asked to save a checkpoint and stop.")
        return
    allowed = submission.request.stop_wait if submission.request else 0
    deadline = time.monotonic() + allowed + GRACE_SECONDS
    while not jobs.get(submission).is_over:
        if time.monotonic() > deadline:
            raise LehrError(f"{run} has not ended after {allowed + GRACE_SECONDS} s; see: {command('logs', run, jobs)}")
        time.sleep(0.5)
    last = [line for line in jobs.logs(submission).splitlines() if line.startswith(("Stopped", "Ended"))]
    print(last[-1] if last else f"{run} has stopped. Resume with: {resume_command(run, jobs)}")
