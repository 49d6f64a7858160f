"""`lehr manifest`: a job as Kubernetes is told to run it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def manifest(
    job: Annotated[str, typer.Argument(help="The job file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the job: optimizer.lr=0.05 schedule=linear", show_default=False),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="The cluster profile, a file. By default LEHR_PROFILE.", show_default=False),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A change to the profile: --set retries=0", show_default=False),
    ] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Store the job's own modules where the cluster gets them.")
    ] = False,
) -> None:
    """Print a job as a RayJob for KubeRay: pipe it to kubectl apply -f -."""
    from lehr.errors import LehrError
    from lehr.job import load
    from lehr.kuberay import load_profile, prepare, storage_of, to_yaml

    profile = profile or os.environ.get("LEHR_PROFILE")
    if not profile:
        raise LehrError("which cluster? name its profile with --profile FILE or LEHR_PROFILE")
    loaded, cluster = load(job, overrides or ()), load_profile(profile, change or ())
    objects, modules = prepare(loaded, cluster)
    if modules and upload:
        modules.store(storage_of(loaded, cluster))
    elif modules:
        print(f"The job uses modules of {modules.folder}: store them with --upload before it starts.", file=sys.stderr)
    print(to_yaml(objects), end="")
