"""`lehr jobs`: the jobs of a cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from lehr.cli.options import Cluster, Kubernetes, connect

if TYPE_CHECKING:
    from lehr.submission.backend import Submission


class Row(TypedDict):
    """A submission as `--json` prints it. Times are UTC, ISO 8601."""

    name: str
    status: str
    kind: str
    submission: int
    id: str
    started: str | None
    ended: str | None
    folder: str


def jobs(
    cluster: Cluster = None,
    kubernetes: Kubernetes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object for each submission.")] = False,
) -> None:
    """List the jobs that were submitted to a cluster.

    Example: lehr jobs --cluster http://host:8265
    """
    connected = connect(cluster, kubernetes)
    rows = [_row(each) for each in connected.jobs()]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich.table import Table

    from lehr.screen import console

    shown = console()
    if not shown.is_terminal:
        shown.width = 200  # whole lines for a pipe
    if not rows:
        shown.print(f"No jobs on {connected.address}.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "status", "kind", "submission", "started (UTC)", "run folder"):
        table.add_column(name, overflow="fold")
    for row in rows:
        started = (row["started"] or "")[:16].replace("T", " ")
        table.add_row(row["name"], row["status"], row["kind"], str(row["submission"]), started, row["folder"])
    shown.print(table)


def _row(each: Submission) -> Row:
    job = each.request.job if each.request else {}
    return {
        "name": each.run,
        "status": each.status,
        "kind": job.get("kind", ""),
        "submission": each.number,
        "id": each.id,
        "started": _time(each.started),
        "ended": _time(each.ended),
        "folder": f"{str(job['storage']).rstrip('/')}/{each.run}" if job.get("storage") else "",
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
