"""`lehr runs`: list the runs of a storage folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehr.cli.options import Storage, storage_or_default

if TYPE_CHECKING:
    from lehr.runs import RunFolder


def runs(
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per run.")] = False,
) -> None:
    """List runs with their state and best result.

    Example: lehr runs
    Example: lehr runs --storage s3://lab/runs --json
    """
    from lehr.runs import find_runs

    folder = storage_or_default(storage)
    rows = [_row(run) for run in find_runs(folder)]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # whole lines for a pipe
    if not rows:
        console.print(f"No runs in {folder}.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "state", "epoch", "best", "started"):
        table.add_column(name, overflow="fold")
    for row in rows:
        best = "" if row["best"] is None else f"{row['metric'].replace('_', ' ')} {row['best']:.4f}"
        epoch = "" if row["epochs"] is None else f"{row['epochs_done']}/{row['epochs']}"
        table.add_row(row["name"], row["status"], epoch, best, row["started"][:16].replace("T", " "))
    console.print(table)


def _row(run: RunFolder) -> dict[str, Any]:
    status, progress = run.status(), run.progress()
    return {
        "name": run.name,
        "status": status,
        "epochs_done": progress.training.epochs_done if progress.training else None,
        "epochs": progress.training.epochs if progress.training else None,
        "metric": progress.best.metric or None,
        "best": progress.best.value,
        "started": run.started,
    }
