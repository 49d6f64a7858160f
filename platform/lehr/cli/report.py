"""`lehr report`: a run's report, one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli import other_tools
from lehr.cli.options import Force, RunName, Storage, only_one, storage_or_default
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
    columns: other_tools.Columns = None,
    rows: other_tools.Rows = None,
) -> None:
    """Write a run's report again, from its record so far.

    Of a file in which another tool recorded curves, it writes a page with its curves and what they show.

    Example: lehr report train
    Example: lehr report /shared/runs/train -o .
    Example: lehr report logs/training.csv
    """
    from lehr.formatting import format_folder
    from lehr.kinds import report_of
    from lehr.result import find
    from lehr.runs import Folder

    if other_tools.are_logs([run]):
        if storage:
            only_one("--storage", "a file of another tool", "allowed: with a run of lehr")
        other_tools.write_reports(other_tools.read([run], columns, rows), output, force)
        return
    for name, value in (("--column", columns), ("--rows", rows)):
        if value is not None:
            only_one(name, "a run of lehr", "allowed: with files of other tools")
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
