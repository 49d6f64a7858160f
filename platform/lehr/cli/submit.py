"""`lehr submit`: run a job on a cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Cluster, Kubernetes, ray_cluster
from lehr.errors import LehrError

if TYPE_CHECKING:
    from lehr.submission.backend import Backend, Request, Submission
    from lehr.submission.package import Package

CHECK_SECONDS = 120.0  # how long to wait for the cluster to have been looked over, before a job is left to itself


def submit(
    job: Annotated[str, typer.Argument(help="The job file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: optimizer.lr=0.05 schedule=linear", show_default=False),
    ] = None,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the cluster has been looked over.")] = True,
    check: Annotated[bool, typer.Option(help="Look the cluster over first; see lehr check.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what this run left and start over.")] = False,
    retries: Annotated[int, typer.Option(min=0, help="Restarts of a driver that died.")] = 3,
    stop_wait: Annotated[int, typer.Option(min=1, help="Seconds that a stop leaves for saving.")] = 120,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the job, visible on the dashboard.", show_default=False)
    ] = None,
    pip: Annotated[
        Path | None, typer.Option(help="A requirements file to install for the job.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="The folder that is sent. By default this one, if the job file is in it, else the job file's.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a job on a cluster. Sent again, a running job is joined and one that failed goes on where it was."""
    from lehr.job import load
    from lehr.submission.submit import package_of, request_of, working_folder

    loaded = load(job, overrides or ())
    root = working_folder(loaded, folder)
    request = request_of(
        loaded, root, check=check, fresh=fresh, retries=retries, stop_wait=stop_wait,
        env=_variables(env or []), pip=_requirements(pip),
    )  # fmt: skip
    if kubernetes:
        from lehr.kuberay.backend import Kubernetes as OnKubernetes

        send(OnKubernetes(kubernetes, loaded), request, None, follow=follow, wait=wait)
    else:
        send(ray_cluster(cluster), request, lambda: package_of(loaded, root), follow=follow, wait=wait)


def send(
    jobs: Backend, request: Request, package: Callable[[], Package] | None, *, follow: bool, wait: bool = True
) -> None:
    """Sends a request, to a Ray cluster with its package, and says what became of it.

    Raises:
        LehrError: the cluster refused it, or it failed while it was watched.
    """
    from lehr.submission.backend import newest
    from lehr.submission.package import in_mib
    from lehr.submission.ray_jobs import RayJobs
    from lehr.submission.submit import decide

    run = request.run
    existing = newest(jobs, run)
    what = decide(request, existing, jobs.address)
    if what == "finished":
        print(f"{run} is finished, on {jobs.address}. To start over, add --fresh.")
        return
    if what == "attach" and existing:
        print(f"{run} is {existing.status} on {jobs.address} already: this is the same job.", flush=True)
        if wait:
            watch(jobs, existing)
        return
    if isinstance(jobs, RayJobs) and package:
        packed = jobs.package = cache(package)
        submission = jobs.submit(request, existing)
        sent = "sent" if jobs.uploaded else "there already"
        print(f"{len(packed().files)} files, {in_mib(packed().nbytes)}, from {request.root}: {sent}")
    else:
        submission = jobs.submit(request, existing)
    again = f", submission {submission.number}" if submission.number > 1 else ""
    print(f"Submitted {run} to {jobs.address}{again}.", flush=True)
    if follow:
        watch(jobs, submission)
        return
    if wait and request.check and isinstance(jobs, RayJobs):
        wait_for_check(jobs, submission)
    print(f"Watch it: lehr attach {run}   how it does: lehr status {run}   end it: lehr stop {run}")


def wait_for_check(jobs: Backend, submission: Submission) -> None:
    """Shows what the cluster was found to lack. Raises LehrError where that ended the job."""
    from lehr.submission.backend import changes_of
    from lehr.submission.check import CHECKED, FINDING

    deadline = time.monotonic() + CHECK_SECONDS
    text = ""
    for current, more in changes_of(jobs, submission, every=0.3):
        text += more
        if current.status == "failed":
            raise ended(current, text)
        if CHECKED in text or current.is_over or time.monotonic() > deadline:
            break
    said = [line for line in text.splitlines() if line.startswith((CHECKED, *FINDING))]
    print("\n".join(said) or "It has not been looked over yet.")


def watch(jobs: Backend, submission: Submission) -> None:
    """Shows a job until it ends; Ctrl-C leaves it running. Raises LehrError where it did not finish."""
    from lehr.submission.following import follow

    try:
        current = follow(jobs, submission)
    except KeyboardInterrupt:
        print(f"\nNo longer watching; {submission.run} goes on. Watch it again: lehr attach {submission.run}")
        return
    if current.status != "finished":
        raise ended(current, jobs.logs(current), shown=True)


def ended(submission: Submission, text: str, *, shown: bool = False) -> LehrError:
    """Why a job did not finish, from what it printed last; in few words where all of that was `shown` already."""
    run = submission.run
    missing = re.search(r"No module named '?(lehr|ray|pyarrow|pydantic)\b", text)
    if missing:
        return LehrError(
            f"`python` on the cluster's head has no module {missing[1]}; install lehr there, first in its PATH, or "
            "use an image that has it, or name it with --pip requirements.txt"
        )
    if submission.status == "stopped":
        return LehrError(f"{run} was stopped; go on with: lehr resume {run}")
    lines = [line for line in text.splitlines() if line.strip()]
    if shown and lines:
        return LehrError(f"{run} failed; when its cause is mended, go on with: lehr resume {run}")
    return LehrError("\n".join(lines[-20:]) or f"{run} failed before it began: {first_line(submission.message)}")


def first_line(message: str) -> str:
    """What the cluster says about a job that never printed anything."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "the cluster does not say why"


def _variables(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise LehrError(f'--env: "{pair}" is not NAME=VALUE')
        if name.startswith("RAY_AUTH"):
            raise LehrError(f"--env: {name} is not sent: what a job is sent stays readable on the cluster")
        found[name] = value
    return found


def _requirements(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise LehrError(f"--pip: {path} cannot be read: {error.strerror}") from None
    return tuple(line for line in lines if line)
