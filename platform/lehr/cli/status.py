"""`lehr status`: the state of a job on a cluster."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted


def status(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the submission and progress.json.")] = False,
) -> None:
    """Show the status, progress and diagnosis of a job on a cluster.

    Example: lehr status digits
    """
    from rich.console import Console

    from lehr.curves import verdict
    from lehr.runs import Progress
    from lehr.screen import PlainScreen, picture
    from lehr.submission.backend import resume_command
    from lehr.submission.follow import run_folder_of

    jobs = connect(cluster, kubernetes)
    submission = submitted(jobs, run)
    folder = run_folder_of(submission)
    progress = folder.progress() if folder else Progress()
    has_progress = progress.training is not None or progress.overview is not None
    if as_json:
        answer = {
            "name": submission.run,
            "status": submission.status,
            "id": submission.id,
            "progress": progress.to_json() if progress.status != "new" else {},
        }
        print(json.dumps(answer))
        return
    console = Console(highlight=False)
    where = f"  {folder.folder.uri}" if folder else ""
    console.print(f"[bold]{submission.run}[/]  {submission.status} on {jobs.address}{where}", soft_wrap=True)
    if has_progress:
        if console.is_terminal:
            console.print(picture(progress))
        else:
            PlainScreen(console).progress(progress)
    if progress.message:
        console.print(progress.message, markup=False)
    if folder and submission.is_over and (found := verdict(folder)):
        console.print(f"Verdict: {found}", markup=False, soft_wrap=True)
    last = [line for line in jobs.logs(submission).splitlines() if line.strip()][-1:]
    if last and not (has_progress and submission.is_over):
        console.print(last[0], style="dim", markup=False, soft_wrap=True)
    if submission.status in ("failed", "stopped"):
        console.print(f"Resume with: {resume_command(submission.run, jobs)}", markup=False, soft_wrap=True)
