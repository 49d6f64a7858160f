"""`lehr report`: a run's report, one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Force, RunName, Storage, storage_or_default
from lehr.errors import StorageError

if TYPE_CHECKING:
    from lehr.runs import Folder, RunFolder

FILES = {"Report": "report.html", "Curves": "curves.png"}


def report(
    run: RunName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write to. By default the run's own, or RUN-report here where that cannot be written.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
    force: Force = False,
) -> None:
    """Write a run's report again, from its record so far.

    Example: lehr report train
    Example: lehr report /shared/runs/train -o .
    """
    from lehr.formatting import format_folder
    from lehr.kinds import report_of
    from lehr.result import find
    from lehr.runs import Folder

    found = find(run, storage_or_default(storage)).record
    if output is None and _is_writable(found):
        try:
            report_of(found)
            _tell(found.folder)
            return
        except StorageError as error:
            if found.folder.is_local:
                raise
            print(error)
    if output is None:
        output = Path(f"{found.name}-report")
        print(f"{format_folder(found.folder)} cannot be written, so its report goes to {output}")
    _write_apart(found, output, force)
    _tell(Folder.at(output))


def _is_writable(run: RunFolder) -> bool:
    """Whether this user may write into a run folder. What an object store allows, only writing shows."""
    return not run.folder.is_local or os.access(run.folder.local_path, os.W_OK | os.X_OK)


def _write_apart(run: RunFolder, output: Path, force: bool) -> None:
    """Writes the report into another folder, and leaves the run as it is."""
    from lehr.kinds import report_of
    from lehr.output import refuse_existing
    from lehr.runs import Folder, RunFolder

    refuse_existing(*(output / name for name in FILES.values()), force=force)
    report_of(RunFolder(run.folder.writing_to(Folder.at(output))))


def _tell(folder: Folder) -> None:
    from lehr.formatting import format_folder

    for what, name in FILES.items():
        if folder.exists(name):
            print(f"{what}: {format_folder(folder)}/{name}")
