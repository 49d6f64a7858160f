"""`lehr check`: whether a cluster has what a job needs."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import (
    AsJson,
    Cluster,
    JobFile,
    Kubernetes,
    Trust,
    only_one,
    print_json,
    ray_jobs,
    rehearsed,
)
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
    as_json: AsJson = False,
) -> None:
    """Check that a cluster has what a job needs, without running it; without a cluster, that the job can run here.

    Each finding says what is missing, why it matters, and what to do. Here the data are opened and the network is
    built, and you see how large both are; nothing is decoded or trained.

    On Kubernetes the cluster is asked whether it would accept the job, and creates nothing.

    Example: lehr check jobs/train.yaml
    Example: lehr check jobs/train.yaml workers=4 --cluster http://host:8265
    Example: lehr check jobs/train.yaml --kubernetes profile.yaml
    """
    started = time.monotonic()
    from lehr.job import load
    from lehr.ray_cluster.local_cluster import running
    from lehr.submission.package import include_names
    from lehr.submission.submit import package_of, request_of, working_folder

    loaded = load(job, overrides or ())
    if kubernetes:
        for option, value in (("--cluster", cluster), ("--folder", folder), ("--json", as_json)):
            if value:
                only_one(option, "--kubernetes")
        names = include_names(loaded.folder, include or [])
        check_kubernetes(loaded, kubernetes, request_of(loaded, loaded.folder, include=names, trust=trust or ()))
        return
    if not (cluster or os.environ.get("RAY_API_SERVER_ADDRESS") or running()):
        for option, given in (("--folder", folder), ("--include", include)):
            if given:
                only_one(option, "no cluster", "name one: --cluster http://host:8265")
        _check_here(loaded, job, overrides or [], trust or [], as_json)
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
    if as_json:
        print_json({"checked": jobs.address, **asdict(result)})
        if result.is_refused:
            raise typer.Exit(1)
        return
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


def _check_here(job: Job, file: str, overrides: list[str], trust: list[str], as_json: bool) -> None:
    """A rehearsal on this machine. Raises JobError or LehrError for what would end the job."""
    from lehr.kinds import check as check_kind
    from lehr.own_modules import look_in
    from lehr.result import trust_all

    trust_all(trust, job.storage)
    look_in(job.folder)
    check_kind(job)
    facts = rehearsed(job)
    if as_json:
        print_json({"checked": "here", "findings": [], **({"training": facts.to_json()} if facts else {})})
        return
    for line in facts.lines() if facts else []:
        print(line)
    typed = shlex.join(["lehr", "run", file, *overrides])
    print(f"No problems found: the job can run on this machine. Type: {typed}")
