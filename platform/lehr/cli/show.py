"""`lehr show`: one run in detail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lehr.cli.options import RunName, Storage, storage_or_default

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

FIRST, LAST = 4, 20  # epochs that are shown of a long run
MOST_METRICS = 4  # of those that the job itself lists; the report has them all
MOST_EVENTS = 200  # the newest ones


def show(run: RunName, storage: Storage = None) -> None:
    """Show a run: its state, verdict, progress, epochs and events.

    Example: lehr show train
    """
    from rich.text import Text

    from lehr.curves import verdict
    from lehr.formatting import format_time_table
    from lehr.result import find
    from lehr.runs import damage
    from lehr.screen import console, facts_of, overview

    found = find(run, storage_or_default(storage)).record
    shown, progress = console(), found.progress()
    shown.print(Text.assemble((found.name, "bold"), f"  {found.status()}  {found.folder.uri}"))
    if problem := damage(found):
        shown.print(problem, style="yellow")
    if progress.message:
        shown.print(progress.message)
    if sentence := verdict(found):
        shown.print(f"Verdict: {sentence}")
    if progress.overview:
        shown.print(overview(progress, progress.overview))
    elif progress.training:
        facts = [Text.assemble((name, "dim"), f" {value}") for name, value in facts_of(progress)]
        shown.print(Text("  ").join(facts))
        shown.print(Text.assemble(("time", "dim"), f" {format_time_table(progress.seconds)}"))
    epochs = found.epochs()
    if len(epochs):
        names, left = _columns(epochs)
        shown.print(_table(epochs, names))
        if left:
            shown.print(f"{left} more columns are in the report: lehr report {found.name}", style="dim")
    events = found.events()
    if len(events) > MOST_EVENTS:
        shown.print(f"The last {MOST_EVENTS} of {len(events):,} events:", style="dim")
    for event in events[-MOST_EVENTS:]:
        time = event["time"][:19].replace("T", " ")
        shown.print(Text.assemble((time, "dim"), f" {event['kind']}: {event['message']}"), soft_wrap=True)


def _columns(epochs: pa.Table) -> tuple[list[str], int]:
    """The columns that have a value, as many as there is room for, and how many are left out."""
    from lehr.runs.columns import listed

    count = len(epochs)
    names = [
        name for name in epochs.column_names if name not in ("step", "seconds") and epochs[name].null_count < count
    ]
    own = [name for split in ("validation", "averaged_validation", "clean_train") for name in listed(names, split)]
    left = own[MOST_METRICS:]
    return [name for name in names if name not in left], len(left)


def _table(epochs: pa.Table, names: list[str]) -> Table:
    """The first and the last epochs, in these columns."""
    from rich.table import Table

    count = len(epochs)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    some = [epochs] if count <= FIRST + LAST else [epochs[:FIRST], epochs[-LAST:]]
    for row in (row for part in some for row in part.to_pylist()):
        table.add_row(*(_cell(row[name]) for name in names))
    return table


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else "" if value is None else str(value)
