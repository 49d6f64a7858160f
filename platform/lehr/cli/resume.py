"""`lehr resume`: go on with a run, on a cluster or here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Cluster, Storage, ray_cluster, storage_or_default
from lehr.errors import LehrError


def resume(
    run: Annotated[str, typer.Argument(help="A run: its name, or the path or URI of its folder.", show_default=False)],
    cluster: Cluster = None,
    storage: Storage = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the cluster has been looked over.")] = True,
    here: Annotated[bool, typer.Option("--here", help="On this machine, whatever cluster there is.")] = False,
) -> None:
    """Go on with a run that failed or was stopped, from its run folder: on a cluster, or here where none is named."""
    from lehr.ray_cluster.local_cluster import recorded

    if here or not (cluster or os.environ.get("RAY_API_SERVER_ADDRESS") or recorded()):
        resume_here(run, storage_or_default(storage))
        return
    from dataclasses import replace

    from lehr.cli.submit import send
    from lehr.submission.backend import newest
    from lehr.submission.submit import package_of, request_of, versions

    jobs = ray_cluster(cluster)
    known = newest(jobs, run)
    if known and known.request:
        request = replace(known.request, fresh=False, client=versions())
        if not Path(request.root).is_dir():
            raise LehrError(
                f"{request.root}, the folder that {run} was sent from, is not on this machine; go to the job file and "
                "submit it again, it goes on where it was"
            )
        job = request.load()
        send(jobs, request, lambda: package_of(job, Path(request.root)), follow=follow, wait=wait)
        return
    job = stored(run, storage_or_default(storage))
    root = Path.cwd()
    send(jobs, request_of(job, root), lambda: package_of(job, root), follow=follow, wait=wait)


def stored(run: str, storage: str):  # type: ignore[no-untyped-def]
    """The job of a run folder, to be run under its name in its storage."""
    from lehr.job import from_dict
    from lehr.result import find

    found = find(run, storage).folder
    place, _, name = found.folder.uri.rpartition("/")
    return from_dict({**found.job, "name": name, "storage": place})


def resume_here(run: str, storage: str) -> None:
    from lehr.kinds import run_job

    job = stored(run, storage)
    run_job(job, command=f"lehr resume {run}")
