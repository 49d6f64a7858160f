"""`lehr show`: one run in detail."""

from __future__ import annotations

from lehr.cli.options import RunName, Storage, storage_or_default


def show(run: RunName, storage: Storage = None) -> None:
    """Show a run: its state, verdict, progress, epochs and events.

    Example: lehr show train
    """
    from rich.console import Console
    from rich.table import Table

    from lehr.curves import verdict
    from lehr.formatting import format_time_table
    from lehr.result import find
    from lehr.screen import facts_of, overview

    found = find(run, storage_or_default(storage)).record
    console, progress = Console(highlight=False), found.progress()
    console.print(f"[bold]{found.name}[/]  {found.status()}  {found.folder.uri}")
    if progress.message:
        console.print(progress.message, markup=False)
    if sentence := verdict(found):
        console.print(f"Verdict: {sentence}", markup=False)
    if progress.overview:
        console.print(overview(progress, progress.overview))
    elif progress.training:
        console.print("  ".join(f"[dim]{name}[/] {value}" for name, value in facts_of(progress)))
        console.print(f"[dim]time[/] {format_time_table(progress.seconds)}")
    epochs = found.epochs().to_pylist()
    if epochs:
        names = [n for n in epochs[0] if n not in ("step", "seconds") and any(row[n] is not None for row in epochs)]
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in names:
            table.add_column(name.replace("_", " "), justify="right")
        shown = epochs if len(epochs) <= 24 else [*epochs[:4], *epochs[-20:]]
        for row in shown:
            table.add_row(*("" if row[n] is None else f"{row[n]:.5g}" for n in names))
        console.print(table)
    for event in found.events():
        console.print(f"[dim]{event['time'][:19].replace('T', ' ')}[/] {event['kind']}: ", end="")
        console.print(event["message"], markup=False)
