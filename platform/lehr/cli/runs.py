"""`lehr runs`: list the runs of a storage folder."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehr.cli.options import Storage, storage_or_default

if TYPE_CHECKING:
    from lehr.runs import Folder, OddEntry, RunFolder

AT_ONCE = 16  # runs whose files are read at the same time from an object store

ROOMY = 100  # characters of a terminal that has room for the year in which a run started


def runs(
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per run.")] = False,
) -> None:
    """List runs with their state and best result, and say what is wrong with what cannot be read.

    Example: lehr runs
    Example: lehr runs --storage s3://lab/runs --json
    """
    from lehr.runs import Folder

    where = storage_or_default(storage)
    rows = rows_of(Folder.at(where))
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console

    shown = console()
    if not shown.is_terminal:
        shown.width = 200  # whole lines for a pipe
    readable = [row for row in rows if row["status"] != "unreadable"]
    if not readable:
        shown.print(f"No runs in {where}.")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "state", "epoch", "best", "started"):
        table.add_column(name, overflow="fold", no_wrap=name in ("epoch", "best", "started"))
    since = 0 if shown.width >= ROOMY else len("2026-")
    for row in readable:
        metric = (row["metric"] or "").replace("validation_", "").replace("_", " ")  # the best is of validation rows
        best = "" if row["best"] is None else f"{metric} {_value(row)}"
        epoch = "" if row["epochs"] is None else f"{row['epochs_done']}/{row['epochs']}"
        table.add_row(row["name"], row["status"], epoch, best, row["started"][since:16].replace("T", " "))
    if readable:
        shown.print(table)
    for row in rows:
        if row["problem"]:
            shown.print(one_line(f"{row['name']}: {row['problem']}"), style="yellow", soft_wrap=True)


def _value(row: dict[str, Any]) -> str:
    """The best value, with its interval where it is an accuracy."""
    from lehr.formatting import format_figure
    from lehr.intervals import metric_in_words

    return metric_in_words(row["best"], row["metric"], row["rows"]) or format_figure(row["best"], ".4f")


def rows_of(storage: Folder) -> list[dict[str, Any]]:
    """A row for each run, oldest first, and for each entry that cannot be read, which has the status "unreadable"."""
    from lehr.runs import list_runs

    listing = list_runs(storage)
    with ThreadPoolExecutor(1 if storage.is_local else AT_ONCE) as pool:
        rows = list(pool.map(_row, listing.runs))
    return [*rows, *map(_odd, listing.odd)]


def _row(run: RunFolder) -> dict[str, Any]:
    from lehr.runs import OddEntry, damage

    try:
        status, progress = run.status(), run.progress()
        return {
            "name": run.name,
            "status": status,
            "epochs_done": progress.training.epochs_done if progress.training else None,
            "epochs": progress.training.epochs if progress.training else None,
            "metric": progress.best.metric or None,
            "best": progress.best.value,
            "rows": progress.measured_rows.get("validation"),
            "started": run.started,
            "problem": damage(run) or None,
        }
    except Exception as error:  # whatever its files raise, the other runs are listed
        return _odd(OddEntry(run.name, damage(run) or f"cannot be read: {error}"))


def _odd(entry: OddEntry) -> dict[str, Any]:
    empty = dict.fromkeys(("epochs_done", "epochs", "metric", "best", "rows"))
    return {"name": entry.name, "status": "unreadable", **empty, "started": "", "problem": entry.what}
