"""Arguments that several commands share, and the cluster or job that they name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from lehr.submission.backend import Backend, Submission
    from lehr.submission.ray_jobs import RayJobs

JobFile = Annotated[str, typer.Argument(help="The job file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the job: optimizer.lr=0.05 schedule=linear", show_default=False),
]
Storage = Annotated[
    str | None,
    typer.Option(help="Folder or URI that holds the runs. By default LEHR_STORAGE, else ./runs.", show_default=False),
]
RunName = Annotated[str, typer.Argument(help="A run: its name, or the path or URI of its folder.", show_default=False)]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Address of the cluster's dashboard, http://host:8265. By default RAY_API_SERVER_ADDRESS, else the "
        "cluster that `lehr cluster up` started.",
        show_default=False,
    ),
]
Kubernetes = Annotated[
    str | None,
    typer.Option(help="Profile file of a Kubernetes cluster, instead of --cluster.", show_default=False),
]
JobName = Annotated[str, typer.Argument(help="The name of a submitted run.", show_default=False)]
Debug = Annotated[bool, typer.Option("--debug", help="Run in one process, without Ray: breakpoints work.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="RUN",
        help="Let code that this run names by import path (its model, its data) run. Remembered until the run changes. "
        "Can be given several times.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the earlier run of this name and start over.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print everything that would be sent, and send nothing.")]


def storage_or_default(storage: str | None) -> str:
    return storage or os.environ.get("LEHR_STORAGE") or "./runs"


def only_one(option: str, beside: str, why: str = "give one of them") -> NoReturn:
    """Raises JobError: an option has no effect beside another one."""
    from lehr.errors import JobError

    raise JobError(f"has no effect beside {beside}; {why}", field=option)


def connect(cluster: str | None, kubernetes: str | None = None) -> Backend:
    """The cluster that a command's options name."""
    if kubernetes and cluster:
        only_one("--cluster", "--kubernetes")
    if kubernetes:
        from lehr.kuberay.backend import Kubernetes as KubernetesBackend

        return KubernetesBackend(kubernetes)
    return ray_jobs(cluster)


def ray_jobs(cluster: str | None) -> RayJobs:
    """The Ray cluster that a command's options name."""
    from lehr.ray_cluster.dashboard import dashboard_address
    from lehr.ray_cluster.local_cluster import running
    from lehr.submission.ray_jobs import RayJobs

    local = None if cluster or os.environ.get("RAY_API_SERVER_ADDRESS") else running()
    address = dashboard_address(cluster, local.address if local else None)
    return RayJobs(address, option=f"--cluster {cluster}" if cluster else "")


def submitted(jobs: Backend, run: str) -> Submission:
    """The newest submission of a run. Raises LehrError, with similar names, where the cluster knows none."""
    from difflib import get_close_matches

    from lehr.errors import LehrError
    from lehr.submission.backend import newest

    if found := newest(jobs, run):
        return found
    known = list(dict.fromkeys(each.run for each in jobs.jobs()))
    similar = get_close_matches(run, known, n=3)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"its jobs: {', '.join(known[-8:]) or 'none'}"
    raise LehrError(f'no job "{run}" on {jobs.address}; {hint}')
