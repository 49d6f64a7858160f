"""Arguments that several commands share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lehr.submission.backend import Backend, Submission
    from lehr.submission.ray_jobs import RayJobs

Storage = Annotated[
    str | None,
    typer.Option(help="Folder or URI that holds the runs. By default LEHR_STORAGE, else ./runs.", show_default=False),
]
RunName = Annotated[str, typer.Argument(help="A run: its name, or the path or URI of its folder.", show_default=False)]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Address of the cluster's dashboard, http://host:8265. By default RAY_API_SERVER_ADDRESS, else the "
        "cluster of `lehr cluster up`.",
        show_default=False,
    ),
]
Kubernetes = Annotated[
    str | None,
    typer.Option(help="The profile of a Kubernetes cluster, a file, instead of --cluster.", show_default=False),
]
JobName = Annotated[str, typer.Argument(help="A run that was submitted: its name.", show_default=False)]


def storage_or_default(storage: str | None) -> str:
    return storage or os.environ.get("LEHR_STORAGE") or "./runs"


def connect(cluster: str | None, kubernetes: str | None = None) -> Backend:
    """The cluster that a command means."""
    if kubernetes:
        from lehr.kuberay.backend import Kubernetes as OnKubernetes

        return OnKubernetes(kubernetes)
    return ray_cluster(cluster)


def ray_cluster(cluster: str | None) -> RayJobs:
    """The Ray cluster that a command means."""
    from lehr.ray_cluster.local_cluster import recorded
    from lehr.submission.ray_jobs import RayJobs, dashboard_address

    known = None if cluster or os.environ.get("RAY_API_SERVER_ADDRESS") else recorded()
    return RayJobs(dashboard_address(cluster, known.address if known else None))


def going_on(run: str, kubernetes: str | None) -> str:
    """The command that goes on with a job that failed or was stopped; `lehr resume` knows Ray clusters only."""
    return f"lehr submit JOB --kubernetes {kubernetes}" if kubernetes else f"lehr resume {run}"


def submitted(jobs: Backend, run: str) -> Submission:
    """The newest submission of a run. Raises LehrError where the cluster knows none, naming those that look alike."""
    from difflib import get_close_matches

    from lehr.errors import LehrError
    from lehr.submission.backend import newest

    if found := newest(jobs, run):
        return found
    known = list(dict.fromkeys(each.run for each in jobs.jobs()))
    alike = get_close_matches(run, known, n=3)
    hint = f"did you mean {' or '.join(alike)}?" if alike else f"it knows {', '.join(known[-8:]) or 'none'}"
    raise LehrError(f'no job "{run}" on {jobs.address}; {hint}')
