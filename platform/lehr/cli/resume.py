"""`lehr resume`: resume a run, on a cluster or on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Cluster, Kubernetes, RunName, Storage, Trust, only_one, ray_jobs, storage_or_default
from lehr.errors import LehrError

if TYPE_CHECKING:
    from lehr.job import Job


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
        resume_here(run, storage_or_default(storage))
        return
    from dataclasses import replace

    from lehr.cli.submit import submit_request
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
    root = Path.cwd()
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


def stored_job(run: str, storage: str) -> Job:
    """The job of a run folder, to be run under its name in its storage.

    Raises:
        Untrusted: it names code that nobody allowed.
    """
    from lehr.formatting import format_folder
    from lehr.job import from_dict, to_dict
    from lehr.result import find
    from lehr.trust import addresses_of, calls_of, check

    found = find(run, storage).record
    # A path says nothing of who sees it; file:// says that every machine does, and `lehr check` relies on it.
    parent, _, name = (run.rstrip("/") if run.startswith("file://") else found.folder.uri).rpartition("/")
    job = from_dict({**found.job, "name": name, "storage": parent})
    check([*calls_of(to_dict(job)), *addresses_of(to_dict(job))], format_folder(found.folder))
    return job


def resume_here(run: str, storage: str) -> None:
    from lehr.kinds import run_job
    from lehr.result import find
    from lehr.runs import foreign_owner

    if owner := foreign_owner(find(run, storage).record.folder):
        print(f"{run} is a run of {owner}; what is added to it is written as this user.")
    run_job(stored_job(run, storage), command=f"lehr resume {run}")
