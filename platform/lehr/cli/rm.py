"""`lehr rm`: delete a run."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default
from lehr.errors import LehrError


def rm(
    run: RunName,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run and everything in it. A run that is being written is not deleted.

    Example: lehr rm train-lr-0.1
    """
    from lehr.result import find
    from lehr.runs import Lease

    found = find(run, storage_or_default(storage)).record
    if not yes and not typer.confirm(f"Delete {found.folder.uri}?"):
        raise LehrError(f"{found.name} was not deleted.")
    with Lease.acquire(found.folder):
        found.folder.delete_all()
    print(f"Deleted {found.name}.")
