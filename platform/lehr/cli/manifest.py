"""`lehr manifest`: a job as a manifest for Kubernetes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lehr.cli.options import DryRun, JobFile, Overrides, Trust, only_one
from lehr.errors import JobError


def manifest(
    job: JobFile,
    overrides: Overrides = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Profile file of the cluster. By default LEHR_PROFILE.", show_default=False),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A change to the profile: --set retries=0", show_default=False),
    ] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload the job's own modules to the storage, where the cluster gets them.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="JOB is a run: print a RayService that answers what it says of images.")
    ] = False,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="With --serve: pods that answer. By default 1.", show_default=False)
    ] = None,
    token_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="With --serve: the Secret whose key `token` requests must bring.", show_default=False
        ),
    ] = None,
    dry_run: DryRun = False,
    trust: Trust = None,
) -> None:
    """Print a job as a RayJob for Kubernetes with KubeRay, or a run as a RayService.

    Example: lehr manifest s3://bucket/runs/digits --serve --token-secret lehr-serve --profile gpu-cloud.yaml
    Example: lehr manifest job.yaml --profile kind.yaml | kubectl apply -f -
    """
    from lehr.job import load
    from lehr.kuberay import load_profile, prepare, storage_of, to_yaml
    from lehr.kuberay.backend import notes, travels
    from lehr.kuberay.profile import profile_file
    from lehr.kuberay.service import service
    from lehr.submission.submit import trusted_with

    cluster = load_profile(profile_file(profile, "--profile"), change or ())
    if serve:
        unused = {"overrides": overrides, "--upload": upload, "--dry-run": dry_run, "--trust": trust}
        for option, value in unused.items():
            if value:
                only_one(option, "--serve", "a run is served as it is")
        if not token_secret:
            raise JobError(
                "a server needs a token: kubectl create secret generic lehr-serve --from-literal=token=…, and then "
                "--token-secret lehr-serve",
                field="--token-secret",
            )
        print(to_yaml(service(job, cluster, replicas=replicas or 1, secret=token_secret)), end="")
        return
    if replicas or token_secret:
        raise JobError("is for --serve alone", field="--replicas" if replicas else "--token-secret")
    loaded = load(job, overrides or ())
    objects, modules = prepare(loaded, cluster, trust=trusted_with(loaded, trust or ()))
    if dry_run:
        print("\n".join(modules.package.listing() if modules else ["no files"]))
        print("\n".join([*travels(cluster), "Nothing was sent."]))
        return
    for note in notes(cluster, modules):
        print(note, file=sys.stderr)
    if modules and upload:
        modules.store(storage_of(loaded, cluster))
    elif modules:
        print(f"The job uses modules from {modules.folder}; add --upload to store them.", file=sys.stderr)
    print(to_yaml(objects), end="")
