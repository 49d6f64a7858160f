"""`lehr report`: a run's report, one page."""

from __future__ import annotations

from lehr.cli.options import RunName, Storage, storage_or_default


def report(run: RunName, storage: Storage = None) -> None:
    """Write a run's report again, from its record so far.

    Example: lehr report train
    """
    from lehr.formatting import format_folder
    from lehr.kinds import report_of
    from lehr.result import find

    found = find(run, storage_or_default(storage)).record
    report_of(found)
    for what, name in (("Report", "report.html"), ("Curves", "curves.png")):
        if found.folder.exists(name):
            print(f"{what}: {format_folder(found.folder)}/{name}")
