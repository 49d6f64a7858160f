"""What `lehr diagnose` and `lehr report` do with the curves of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.errors import JobError

if TYPE_CHECKING:
    from rich.console import Console

    from lehr.other_tools import Log, Verdict

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="MEANING=COLUMN",
        help="Of a file of another tool: what a column is, such as validation_loss=loss_va. May be repeated.",
        show_default=False,
    ),
]
Rows = Annotated[
    int | None,
    typer.Option(
        help="Of a file of another tool: its validation rows, for the intervals of accuracies.", show_default=False
    ),
]


def are_logs(names: list[str]) -> bool:
    """Whether all of these are files or folders of other tools. Raises JobError where only some are."""
    from lehr.other_tools import is_log

    found = [_looks_like_a_path(name) and is_log(Path(name)) for name in names]
    if any(found) and not all(found):
        other = names[found.index(False)]
        raise JobError(f"{other} is no file of curves, as the others are; allowed: files alone, or one run")
    return all(found)


def _looks_like_a_path(name: str) -> bool:
    return "://" not in name and not (Path(name) / "job.yaml").is_file()


def read(names: list[str], columns: list[str] | None, rows: int | None) -> list[Log]:
    """The logs that the names stand for."""
    from lehr.other_tools import read_logs

    mapped = {}
    for each in columns or []:
        meaning, sign, column = each.partition("=")
        if not (meaning and sign and column):
            raise JobError(f"{each} says no column; allowed: MEANING=COLUMN, such as validation_loss=loss_va")
        mapped[meaning] = column
    if rows is not None and rows < 1:
        raise JobError(f"{rows} is no number of rows; allowed: 1 or more", field="--rows")
    return [log for name in names for log in read_logs(Path(name), mapped, rows or 0)]


def show_diagnoses(logs: list[Log], as_json: bool) -> None:
    """Prints what each log shows."""
    from lehr.other_tools import diagnose_log
    from lehr.screen import console

    verdicts = [diagnose_log(log) for log in logs]
    if as_json:
        print(json.dumps([each.to_json() for each in verdicts], indent=2))
        return
    shown = console(soft_wrap=True)
    for number, verdict in enumerate(verdicts):
        if number:
            shown.print()
        _show(shown, verdict)


def _show(shown: Console, verdict: Verdict) -> None:
    from rich.text import Text

    from lehr.other_tools.diagnosis import others
    from lehr.other_tools.report import lead

    log = verdict.log
    read_as = "; ".join(f"{meaning}: {curve.column}" for meaning, curve in log.curves.items())
    shown.print(Text.assemble((log.name, "bold"), (f"  {lead(log)}", "dim")))
    shown.print(f"Read as {read_as}.", style="dim")
    if log.unknown:
        shown.print(f"Not used: {', '.join(log.unknown)}.", style="dim")
    for judged in verdict.judged:
        found = judged.finding
        style = "bold green" if found.good else "bold yellow"
        shown.print()
        shown.print(Text.assemble((found.title, style), "  ", (f"{found.confidence} confidence", "dim")))
        shown.print(found.sentence)
        shown.print(found.advice)
        if line := others(found):
            shown.print(line, style="dim")
        shown.print(f"Rule: {found.rule}.", style="dim")
    if verdict.untold:
        shown.print()
        shown.print(f"This file cannot tell: {'; '.join(verdict.untold)}.", style="dim")


def write_reports(logs: list[Log], output: Path | None, force: bool) -> None:
    """Writes a page for each log: `report.html`, in a folder named after it."""
    from lehr.other_tools import diagnose_log
    from lehr.other_tools.report import log_page
    from lehr.output import refuse_existing, write_whole

    places = _places(logs, output)
    refuse_existing(*places, force=force)
    for log, place in zip(logs, places, strict=True):
        write_whole(place, log_page(diagnose_log(log)))
        print(f"Report: {place}")


def _places(logs: list[Log], output: Path | None) -> list[Path]:
    folder = output or Path(f"{Path(logs[0].name.partition(',')[0]).stem}-report")
    if len(logs) == 1:
        return [folder / "report.html"]
    return [folder / f"report-{number}.html" for number in range(1, len(logs) + 1)]
