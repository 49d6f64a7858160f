"""`lehr status`: the state of a job on a cluster."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted

LAST_LINES = 5


def status(
    run: JobName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the submission and progress.json.")] = False,
) -> None:
    """Show the status, progress and diagnosis of a job on a cluster.

    Example: lehr status digits
    """
    from rich.text import Text

    from lehr.curves import verdict
    from lehr.runs import Progress
    from lehr.screen import PlainScreen, console, picture
    from lehr.submission.backend import resume_command
    from lehr.submission.follow import run_folder_of

    jobs = connect(cluster, kubernetes)
    submission = jobs.get(submitted(jobs, run))
    folder = run_folder_of(submission)
    progress = folder.progress() if folder else Progress()
    has_progress = progress.training is not None or progress.overview is not None
    if as_json:
        answer = {
            "name": submission.run,
            "status": submission.status,
            "id": submission.id,
            "why": submission.why,
            "progress": progress.to_json() if progress.status != "new" else {},
        }
        print(json.dumps(answer))
        return
    shown = console()
    where = f"  {folder.folder.uri}" if folder else ""
    head = Text.assemble((submission.run, "bold"), f"  {submission.status} on {jobs.address}{where}")
    shown.print(head, soft_wrap=True)
    if submission.why:
        shown.print(submission.why, markup=False, soft_wrap=True)
    if has_progress:
        if shown.is_terminal:
            shown.print(picture(progress))
        else:
            PlainScreen(shown).progress(progress)
    if progress.message:
        shown.print(progress.message, markup=False)
    if folder and submission.is_over and (found := verdict(folder)):
        shown.print(f"Verdict: {found}", markup=False, soft_wrap=True)
    lines = [line for line in jobs.logs(submission).splitlines() if line.strip()]
    if lines and not has_progress:  # which is newer than any line
        # Where this machine does not reach the run folder, its last lines say how far it is.
        for line in lines[-LAST_LINES:]:
            shown.print(line, style="dim", markup=False, soft_wrap=True)
    if submission.status in ("failed", "stopped"):
        shown.print(f"Resume with: {resume_command(submission.run, jobs)}", markup=False, soft_wrap=True)
