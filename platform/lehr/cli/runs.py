"""`lehr runs`: list the runs of a storage folder."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lehr.cli.options import Storage, storage_or_default


def runs(
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per run.")] = False,
) -> None:
    """List runs with their state and best result."""
    from lehr.runs import find_runs

    place = storage_or_default(storage)
    rows = [_row(run.name, run.status(), run.progress(), run.started) for run in find_runs(place)]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not rows:
        console.print(f"No runs in {place}.", highlight=False)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "state", "epoch", "best", "started"):
        table.add_column(name)
    for row in rows:
        best = "" if row["best"] is None else f"{row['metric'].replace('_', ' ')} {row['best']:.4f}"
        epoch = "" if row["epochs"] is None else f"{row['epochs_done']}/{row['epochs']}"
        table.add_row(row["name"], row["status"], epoch, best, row["started"][:16].replace("T", " "))
    console.print(table)


def _row(name: str, status: str, progress: dict[str, Any], started: str) -> dict[str, Any]:
    best = progress.get("best") or {}
    return {
        "name": name,
        "status": status,
        "epochs_done": progress.get("epochs_done"),
        "epochs": progress.get("epochs"),
        "metric": best.get("metric"),
        "best": best.get("value"),
        "started": started,
    }
