"""`lehr check`: whether a cluster has what a job needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Cluster, JobFile, Kubernetes, Trust, only_one, ray_jobs
from lehr.cli.submit import CHECK_SECONDS, ended, wait_for_check
from lehr.errors import LehrError

if TYPE_CHECKING:
    from lehr.job import Job
    from lehr.submission.backend import Request


def check(
    job: JobFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: workers=4 storage=s3://…", show_default=False),
    ] = None,
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    folder: Annotated[
        Path | None, typer.Option(help="The folder to upload; see lehr submit.", show_default=False)
    ] = None,
    include: Annotated[
        list[Path] | None, typer.Option(help="What to upload as well; see lehr submit.", show_default=False)
    ] = None,
    trust: Trust = None,
) -> None:
    """Check that a cluster has what a job needs, without running it.

    Each finding says what is missing, why it matters, and what to do.

    On Kubernetes the cluster is asked whether it would accept the job, and creates nothing.

    Example: lehr check jobs/train.yaml workers=4
    Example: lehr check jobs/train.yaml --kubernetes profile.yaml
    """
    started = time.monotonic()
    from lehr.job import load
    from lehr.submission.package import include_names
    from lehr.submission.submit import package_of, request_of, working_folder

    loaded = load(job, overrides or ())
    if kubernetes:
        for option, value in (("--cluster", cluster), ("--folder", folder)):
            if value:
                only_one(option, "--kubernetes")
        names = include_names(loaded.folder, include or [])
        check_kubernetes(loaded, kubernetes, request_of(loaded, loaded.folder, include=names, trust=trust or ()))
        return
    root = working_folder(loaded, folder)
    request = request_of(loaded, root, only_check=True, include=include_names(root, include or []), trust=trust or ())
    jobs = ray_jobs(cluster)
    jobs.package = lambda: package_of(loaded, root, request.include)
    submission = jobs.submit(request)
    current, result = submission, None
    try:
        current, result = wait_for_check(jobs, submission)
    finally:
        if result is None and not current.is_over:  # with a result it ends by itself
            jobs.stop(current)
    if result is None and current.is_over:
        raise ended(jobs, current)
    if result is None:
        raise LehrError(f"{jobs.address} did not finish the check in {CHECK_SECONDS:.0f} s; is it very busy?")
    for note in jobs.notes[:-1]:  # the last says what was uploaded
        print(note)
    print("\n".join(map(str, result.findings)) or "No problems found: the job can run there.")
    print(f"Checked {jobs.address} in {time.monotonic() - started:.1f} s.")
    if result.is_refused:
        raise typer.Exit(1)


def check_kubernetes(job: Job, profile: str, request: Request) -> None:
    """Whether a Kubernetes cluster would accept a job: its definitions, the rights of this user, the namespace."""
    from lehr.kuberay.backend import Kubernetes as KubernetesBackend
    from lehr.submission.backend import refuse_secrets

    started = time.monotonic()
    refuse_secrets(request)
    backend = KubernetesBackend(profile, job)
    objects, *_ = backend.objects(request)
    backend.client.check(objects)
    print("No problems found: the cluster accepts the job. Whether its nodes have room is not known before it starts.")
    print(f"Checked {backend.address} in {time.monotonic() - started:.1f} s.")
