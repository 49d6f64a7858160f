"""`lehr rm`: delete a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default
from lehr.errors import LehrError, StorageError

if TYPE_CHECKING:
    from lehr.runs import Folder


def rm(
    run: RunName,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run and everything in it. A run that is being written is not deleted.

    Example: lehr rm train-lr-0.1
    """
    from lehr.result import find

    folder = find(run, storage_or_default(storage)).record.folder
    linked = folder.is_local and os.path.islink(folder.local_path)
    where = f"{folder.uri} and {os.path.realpath(folder.local_path)}, to which it leads" if linked else folder.uri
    if not yes and not typer.confirm(f"Delete {where}?"):
        raise LehrError(f"{folder.name} was not deleted.")
    delete(folder)
    print(f"Deleted {folder.name}.")


def delete(folder: Folder) -> None:
    """Deletes a run that nobody writes; where its folder is a link, what it leads to and the link.

    Raises:
        RunHeld: a live process writes it.
        RunError: this user may not write it.
        StorageError: it may not be deleted; what is left of it is told.
    """
    from lehr.runs import Folder, Lease, check_writable

    check_writable(folder)
    linked = folder.is_local and os.path.islink(folder.local_path)
    with Lease.acquire(folder, say=print):
        # Until it is gone the lease is renewed, so nobody begins to write. On a disk the folder is renamed first, and
        # a folder that is gone is never created again; in an object store the renewal may leave its file behind.
        (Folder.at(os.path.realpath(folder.local_path)) if linked else folder).delete_all()
    try:
        if linked:
            os.unlink(folder.local_path)
        elif not folder.is_local:
            folder.delete_all()
    except OSError as error:
        raise StorageError(f"{folder.uri}: cannot delete this link: {error.strerror}") from error
