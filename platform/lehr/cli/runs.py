"""`lehr runs`: list the runs of a storage folder."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lehr.cli.options import Storage, storage_or_default

ROOMY = 100  # characters of a terminal that has room for the year in which a run started


def runs(
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per run.")] = False,
) -> None:
    """List runs with their state and best result, and say what is wrong with what cannot be read.

    Example: lehr runs
    Example: lehr runs --storage s3://lab/runs --json
    """
    from lehr.runs import Folder, summaries

    where = storage_or_default(storage)
    rows = summaries(Folder.at(where))
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
