"""`lehr resume`: resume a run, on a cluster or on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Cluster, Kubernetes, RunName, Storage, Trust, only_one, ray_jobs, storage_or_default
from lehr.errors import LehrError


def resume(
    run: RunName,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    storage: Storage = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the result of the cluster check.")] = True,
    here: Annotated[bool, typer.Option("--here", help="Resume on this machine, even with a cluster.")] = False,
    trust: Trust = None,
) -> None:
    """Resume a run that failed or was stopped, from its last checkpoint.

    The run is resumed on the cluster, or on this machine where no cluster is given.

    Example: lehr resume digits --follow
    Example: lehr resume digits --trust digits
    Example: lehr resume digits --kubernetes profile.yaml
    """
    from lehr.ray_cluster.local_cluster import running
    from lehr.result import trust_all

    if here and (cluster or kubernetes or follow or not wait):
        given = "--cluster" if cluster else "--kubernetes" if kubernetes else "--follow" if follow else "--no-wait"
        only_one(given, "--here")
    if kubernetes:
        for option, value in (("--cluster", cluster), ("--storage", storage), ("--trust", trust)):
            if value:
                only_one(option, "--kubernetes", "the job is submitted again as it was")
        resume_on_kubernetes(run, kubernetes, follow=follow, wait=wait)
        return
    trust_all(trust or (), storage_or_default(storage))
    if here or not (cluster or os.environ.get("RAY_API_SERVER_ADDRESS") or running()):
        resume_here(run, storage_or_default(storage), asked=here)
        return
    from dataclasses import replace

    from lehr.cli.submit import submit_request
    from lehr.result import stored_job
    from lehr.submission.backend import newest
    from lehr.submission.submit import package_of, request_of, trusted_with, versions

    jobs = ray_jobs(cluster)
    known = newest(jobs, run)
    if known and known.request:
        request = replace(known.request, fresh=False, client=versions())
        request = replace(request, trust=(*request.trust, *trusted_with(request.load(), trust or ())))
        if not Path(request.root).is_dir():
            raise LehrError(
                f"{request.root}, the folder that {run} was submitted from, is not on this machine; to resume the run, "
                "submit its job file again"
            )
        job = request.load()
        jobs.package = lambda: package_of(job, Path(request.root), request.include)
        submit_request(jobs, request, follow=follow, wait=wait)
        return
    job = stored_job(run, storage_or_default(storage))
    root = code_folder(run, storage_or_default(storage))
    jobs.package = lambda: package_of(job, root)
    submit_request(jobs, request_of(job, root, trust or ()), follow=follow, wait=wait)


def resume_on_kubernetes(run: str, profile: str, *, follow: bool, wait: bool) -> None:
    """Submits a job once more, as the cluster remembers it, or as its run folder does.

    Raises:
        LehrError: neither is within reach.
    """
    from lehr.cli.submit import submit_request, watch
    from lehr.errors import RunError
    from lehr.kuberay.backend import Kubernetes as KubernetesBackend
    from lehr.result import stored_job
    from lehr.submission.backend import command, newest
    from lehr.submission.submit import request_of

    jobs = KubernetesBackend(profile)
    if known := newest(jobs, run):
        if known.status == "finished":
            print(f"{known.run} is finished on {jobs.address}; nothing is left to do.")
            return
        again = known if not known.is_over else jobs.resume(known)
        what = "Resumed" if known.is_over else f"Already {known.status}:"
        print(f"{what} {known.run} on {jobs.address}.", flush=True)
        if follow or (wait and not known.is_over):
            watch(jobs, again)
        else:
            print(f"Watch it: {command('attach', known.run, jobs)}")
        return
    storage = jobs.profile.storage or "./runs"
    try:
        jobs.job = stored_job(run, storage)
    except RunError:
        raise LehrError(
            f"{jobs.address} knows no job {run}, and {storage}/{run} is not within reach of this machine; submit its "
            f"job file again: {command('submit', f'JOB name={run}', jobs)}"
        ) from None
    submit_request(jobs, request_of(jobs.job, Path.cwd()), follow=follow, wait=wait)


def code_folder(run: str, storage: str) -> Path:
    """The folder whose modules a run is resumed with: the one that it was made in, where that is still here.

    Else it is the current one, which is said.
    """
    from lehr.formatting import format_path
    from lehr.result import find

    environment = find(run, storage).record.environment
    file = environment.job_file
    made_in = Path(environment.submitted_from or (os.path.dirname(file) if file else "")).absolute()
    here, said = Path.cwd(), bool(environment.submitted_from or file)
    if said and made_in.is_dir() and not Path.home().is_relative_to(made_in):  # a home is never meant
        if made_in != here:
            print(f"Modules of your own are taken from {format_path(made_in)}, where the run was made.")
        return made_in
    why = f", since {format_path(made_in)}, where the run was made, is not on this machine" if said else ""
    print(f"Modules of your own are taken from {format_path(here)}{why}.")
    return here


def resume_here(run: str, storage: str, *, asked: bool) -> None:
    """Resumes a run on this machine.

    Args:
        asked: `--here` was typed; else a run that a cluster began is said to go on here.
    """
    from lehr.kinds import run_job
    from lehr.result import find, stored_job
    from lehr.runs import foreign_owner

    record = find(run, storage).record
    if owner := foreign_owner(record.folder):
        print(f"{run} is a run of {owner}; what is added to it is written as this user.")
    if record.environment.submitted_from and record.status() != "finished" and not asked:
        print(
            f"{run} was begun on a cluster, and none is given or running here: it goes on on this machine. On a "
            f"cluster instead: lehr cluster up && lehr resume {run}"
        )
    run_job(stored_job(run, storage), command=f"lehr resume {run}")
