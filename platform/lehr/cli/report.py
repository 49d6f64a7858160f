"""`lehr report`: a run as one page."""

from __future__ import annotations

from lehr.cli.options import RunName, Storage, storage_or_default


def report(run: RunName, storage: Storage = None) -> None:
    """Write a run's report.html and curves.png anew, from what it has recorded so far."""
    from lehr.curves import write_curves
    from lehr.driver import shown
    from lehr.errors import RunError
    from lehr.result import find

    found = find(run, storage_or_default(storage)).folder
    if not len(found.steps()):
        raise RunError(f"{found.name} has recorded no steps yet; there is nothing to report")
    write_curves(found)
    print(f"Report: {shown(found.folder)}/report.html")
    print(f"Curves: {shown(found.folder)}/curves.png")
