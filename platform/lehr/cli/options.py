"""Arguments that several commands share, and the cluster or job that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lehr.paths import default_storage

if TYPE_CHECKING:
    from lehr.job import Job
    from lehr.submission.backend import Backend, Submission
    from lehr.submission.ray_jobs import RayJobs
    from lehr.training.rehearsal import JobFacts

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print everything that would be sent, and send nothing.")]


def print_json(value: object) -> None:
    """Prints a value for programs. What is no number is null: JSON has no NaN and no infinity."""
    import json

    print(json.dumps(_plain(value), indent=1, ensure_ascii=False, default=str))


def _plain(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@contextmanager
def loading(what: str) -> Iterator[None]:
    """In a terminal, says what takes the first seconds, until it is there."""
    from lehr.printing import raw

    if not sys.stdout.isatty():
        yield
        return
    screen = raw(sys.stdout)  # which shows no control characters in its place
    screen.write(f"\033[2m loading {what} …\033[0m\r")
    screen.flush()
    try:
        yield
    finally:
        screen.write("\033[2K\r")
        screen.flush()


def rehearsed(job: Job) -> JobFacts | None:
    """What a job's training would be, or that of its base; None for a job that trains nothing, or whose data only Ray
    can open. Raises JobError and LehrError for what would end it."""
    from dataclasses import replace

    from lehr.data.sources import returns_dataset
    from lehr.job import told_of_base, training_in
    from lehr.training.rehearsal import facts_of

    training = training_in(job, "rehearsal")
    if training is None or returns_dataset(training.data):
        return None
    with told_of_base(job):
        return replace(facts_of(training), trainings=getattr(job, "folds", 1))


def storage_or_default(storage: str | None) -> str:
    return storage or default_storage()


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
