"""The command line: a list of small commands, and the one place where a known error becomes one red line."""

from __future__ import annotations

import sys

import typer

from lehr.cli import compare, data, diagnose, monitor, report, rm, run, runs, schedule, schema, show
from lehr.errors import LehrError

app = typer.Typer(
    name="lehr",
    help="Train neural networks well, from one short job file, on a laptop or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("runs")(runs.runs)
app.command("show")(show.show)
app.command("diagnose")(diagnose.diagnose)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("rm")(rm.rm)
app.add_typer(data.app, name="data")
app.add_typer(monitor.app, name="monitor")
app.command("schedule")(schedule.schedule)
app.command("schema")(schema.schema)


def main() -> None:
    """Entry point of the `lehr` command."""
    try:
        app()
    except LehrError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)


def fail(sentence: str, code: int) -> None:
    """One red line on standard error (the rest of several lines plain), and the exit code."""
    first, _, rest = sentence.partition("\n")
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{first}{plain}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
