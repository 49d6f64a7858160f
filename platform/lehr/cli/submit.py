"""`lehr submit`: run a job on a cluster."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Cluster, DryRun, Fresh, JobFile, Kubernetes, Overrides, Trust, only_one, ray_jobs
from lehr.errors import JobError, LehrError

if TYPE_CHECKING:
    from lehr.submission.backend import Backend, Request, Submission
    from lehr.submission.check_result import CheckResult
    from lehr.submission.package import Package
    from lehr.submission.ray_jobs import RayJobs

RETRIES, STOP_WAIT = 3, 120  # where neither the command line nor a profile says
CHECK_SECONDS = 120.0  # how long to wait for the cluster check


def submit(
    job: JobFile,
    overrides: Overrides = None,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the result of the cluster check.")] = True,
    check: Annotated[bool, typer.Option(help="Check the cluster before the job starts; see lehr check.")] = True,
    fresh: Fresh = False,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"How often a driver that dies is restarted. By default {RETRIES}, or the profile's.",
            show_default=False,
        ),
    ] = None,
    stop_wait: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Seconds that a stop leaves for saving a checkpoint. By default {STOP_WAIT}, or the profile's grace.",
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable NAME=VALUE of the job, readable on the cluster.", show_default=False),
    ] = None,
    pip: Annotated[
        Path | None, typer.Option(help="Requirements file to install for the job.", show_default=False)
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file or folder to upload although it is ignored, looks like a secret or leads out of the folder.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="The folder to upload. By default the current one, if the job file is in it, else the job file's.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    trust: Trust = None,
) -> None:
    """Run a job on a cluster, with your own modules.

    Submitting a running job again attaches to it; submitting one that failed or was stopped resumes it.

    Example: lehr submit jobs/train.yaml optimizer.lr=0.05 --follow
    Example: lehr submit jobs/train.yaml --dry-run
    """
    from lehr.job import load
    from lehr.submission.mistakes import refuse_mistakes
    from lehr.submission.package import include_names
    from lehr.submission.submit import package_of, request_of, working_folder

    loaded = load(job, overrides or ())
    if kubernetes:
        if cluster:
            only_one("--cluster", "--kubernetes")
        _refuse_on_kubernetes(pip=pip, folder=folder, check=not check, wait=not wait and follow)
    if dry_run and (follow or not wait):
        only_one("--follow" if follow else "--no-wait", "--dry-run", "nothing is sent")
    if note := refuse_mistakes(loaded):
        print(note)
    root = loaded.folder if kubernetes else working_folder(loaded, folder)
    request = request_of(
        loaded, root, check=check, fresh=fresh, retries=RETRIES if retries is None else retries,
        stop_wait=STOP_WAIT if stop_wait is None else stop_wait,
        env=_variables(env or []), pip=read_requirements(pip), include=include_names(root, include or []),
        trust=trust or (),
    )  # fmt: skip
    if dry_run and kubernetes:
        from lehr.kuberay import load_profile, own_modules
        from lehr.kuberay.backend import travels

        modules = own_modules(loaded, request.include)
        show_dry_run(request, modules.package if modules else None, travels(load_profile(kubernetes)))
    elif dry_run:
        show_dry_run(request, package_of(loaded, root, request.include))
    elif kubernetes:
        from lehr.kuberay.backend import Kubernetes as KubernetesBackend

        backend = KubernetesBackend(kubernetes, loaded, retries=retries, grace=stop_wait)
        submit_request(backend, request, follow=follow, wait=wait)
    else:
        jobs = ray_jobs(cluster)
        jobs.package = lambda: package_of(loaded, root, request.include)
        submit_request(jobs, request, follow=follow, wait=wait)


def show_dry_run(request: Request, package: Package | None, more: Sequence[str] = ()) -> None:
    """Prints everything that would be sent, `more` too, and why the request would be refused."""
    from lehr.submission.backend import refuse_secrets
    from lehr.submission.submit import travels

    print("\n".join([*travels(request, package), *more]))
    try:
        refuse_secrets(request)
    except LehrError as refused:
        print(f"would be refused: {refused}")
    print("Nothing was sent.")


def submit_request(jobs: Backend, request: Request, *, follow: bool, wait: bool = True) -> None:
    """Submits a request and prints what came of it.

    Raises:
        JobError: it holds secrets.
        LehrError: the cluster refused it, or it failed while it was watched.
    """
    from lehr.submission.backend import command, newest, refuse_secrets
    from lehr.submission.ray_jobs import RayJobs
    from lehr.submission.submit import next_action
    from lehr.trust import calls_of, remember

    refuse_secrets(request)
    run = request.run
    existing = newest(jobs, run)
    action = next_action(request, existing, jobs)
    if action == "nothing":
        submitted = sys.argv[1:2] == ["submit"]
        again = shlex.join(["lehr", *sys.argv[1:], "--fresh"]) if submitted else "lehr submit JOB --fresh"
        print(f"{run} is finished on {jobs.address}. To start over, submit its job file: {again}")
        return
    if action == "attach" and existing:
        print(f"{run} is already {existing.status} on {jobs.address}; this is the same job.", flush=True)
        if wait:
            watch(jobs, existing)
        return
    submission = jobs.submit(request, existing)
    remember(calls_of(request.job), request.folder)  # so that predict, here, may run what this job names
    for note in jobs.notes:
        print(note)
    number = f", submission {submission.number}" if submission.number > 1 else ""
    print(f"Submitted {run} to {jobs.address}{number}.", flush=True)
    if follow:
        watch(jobs, submission)
        return
    if wait and request.check and isinstance(jobs, RayJobs):
        show_check(jobs, submission)
    attach, status, stop = (command(verb, run, jobs) for verb in ("attach", "status", "stop"))
    print(f"Watch it: {attach}   show its status: {status}   stop it: {stop}")


def show_check(jobs: RayJobs, submission: Submission) -> None:
    """Prints what the cluster check found, once it is over. Raises LehrError where that ended the job."""
    current, result = wait_for_check(jobs, submission)
    if result and result.is_refused:
        raise LehrError("\n".join(result.lines()))
    if result is None and current.status == "failed":
        raise ended(jobs, current)
    print("\n".join(result.lines()) if result else "The cluster has not been checked yet.")


def wait_for_check(jobs: RayJobs, submission: Submission) -> tuple[Submission, CheckResult | None]:
    """The result of a job's cluster check; None where the job ended without one, or after `CHECK_SECONDS`."""
    deadline = time.monotonic() + CHECK_SECONDS
    while True:
        current = jobs.get(submission)
        result = jobs.check_result(current)
        if result or current.is_over or time.monotonic() > deadline:
            return current, result
        time.sleep(0.2)


def watch(jobs: Backend, submission: Submission) -> None:
    """Shows a job until it ends; Ctrl-C leaves it running. Raises LehrError where it did not finish."""
    from lehr.submission.backend import command
    from lehr.submission.follow import follow

    if not submission.is_over:
        print(f"Watching {submission.run}. Ctrl-C stops the watching; {submission.run} keeps running.", flush=True)
    try:
        current = follow(jobs, submission)
    except KeyboardInterrupt:
        run = submission.run
        print(f"\nNo longer watching; {run} keeps running. Watch it again: {command('attach', run, jobs)}")
        return
    if current.status != "finished":
        raise ended(jobs, current, shown=True)


def ended(jobs: Backend, submission: Submission, *, shown: bool = False) -> LehrError:
    """Why a job did not finish, from what it printed last; in one line where its output was `shown` already."""
    from lehr.ray_cluster.dashboard import last_line
    from lehr.submission.backend import resume_command

    run, text = submission.run, jobs.logs(submission)
    missing = re.search(r"No module named '?(lehr|ray|pyarrow|pydantic)\b", text)
    if missing:
        return LehrError(
            f"`python` on the cluster's head has no module {missing[1]}; install lehr there in the `python` that comes "
            "first in its PATH, use an image that has it, or add it with --pip requirements.txt"
        )
    if submission.status == "stopped":
        return LehrError(f"{run} was stopped; resume with: {resume_command(run, jobs)}")
    lines = [line for line in text.splitlines() if line.strip()]
    if shown and lines:
        return LehrError(f"{run} failed; once the cause is fixed, resume with: {resume_command(run, jobs)}")
    return LehrError("\n".join(lines[-20:]) or f"{run} failed before it started: {last_line(submission.message)}")


def _refuse_on_kubernetes(*, pip: Path | None, folder: Path | None, check: bool, wait: bool) -> None:
    """Options that nothing on Kubernetes would heed."""
    refused = {
        "--pip": (pip, "the packages belong into the image that the profile names"),
        "--folder": (folder, "the Python files beside the job file are uploaded"),
        "--no-check": (check, "there is no check of the cluster to leave out"),
        "--no-wait": (wait, "--follow waits until the job ends; give one of them"),
    }
    for option, (value, instead) in refused.items():
        if value:
            raise JobError(f"is not for Kubernetes; {instead}", field=option)


def _variables(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not (name.isidentifier() and name.isascii()):
            given = name if name.isprintable() and not equals else "a pair without a name"
            raise JobError(f'"{given}" is not NAME=VALUE', field="--env")
        found[name] = value
    return found


def read_requirements(path: Path | None) -> tuple[str, ...]:
    """The lines of a requirements file as pip reads them: continued lines joined, comments left out."""
    if path is None:
        return ()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", field="--pip") from None
    joined = re.sub(r"[ \t]*\\\r?\n[ \t]*", " ", text).splitlines()
    lines = tuple(filter(None, (re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined)))
    for line in lines:
        local = re.match(r"(-r|-c|--requirement|--constraint)\b|(-e\s*|--editable[\s=]+)?(\./|\.\./|/|\.$)", line)
        if local or "@ file:" in line:
            raise JobError(
                f"{path}: {line} is a file on this machine, which the cluster does not have; put the lines of a "
                f"requirements file into {path} itself, and your own modules into the folder that is uploaded",
                field="--pip",
            )
    return lines
