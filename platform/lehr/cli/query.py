"""`lehr query`: SQL over all runs."""

from __future__ import annotations

import csv
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from lehr.cli.options import Storage, print_json, storage_or_default

MOST = 100  # rows that a terminal is shown

Sql = Annotated[
    str | None,
    typer.Argument(metavar="SELECT", help="What to select; without it, the tables and columns.", show_default=False),
]


def query(
    select: Sql = None,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list with an object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask all runs a question in SQL: which was best, with which setting, after how long.

    The tables are runs, trainings (the trials and members inside runs), epochs, steps and events.

    Example: lehr query "select run, best from runs order by best desc limit 5"
    Example: lehr query "select job->>'$.optimizer.lr' as lr, max(best) from trainings group by lr" --csv
    """
    from lehr.query import ask, tables
    from lehr.screen import FittingTable, console

    where = storage_or_default(storage)
    if select is None:
        for name, row in tables().items():
            columns = ask(f"select * from {name} limit 0", where).columns
            print(f"{name}: {row}", f"  {', '.join(columns)}", sep="\n")
        return
    found = ask(select, where)
    if as_json:
        print_json([dict(zip(found.columns, row, strict=True)) for row in found.rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(found.columns)
        writer.writerows(found.rows)
    else:
        shown = console()
        shown.print(FittingTable(found.columns, [[_told(cell) for cell in row] for row in found.rows[:MOST]]))
        if len(found.rows) > MOST:
            shown.print(f"… and {len(found.rows) - MOST:,} more rows; --csv or --json prints all", style="dim")


def _told(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)
