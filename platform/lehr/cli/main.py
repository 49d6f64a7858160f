"""The command line: a list of small commands, and the one place where a known error becomes one red line."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from lehr.errors import LehrError

COMMANDS = (
    "run",
    "search",
    "best",
    "recipe",
    "new",
    "runs",
    "show",
    "diagnose",
    "report",
    "compare",
    "predict",
    "evaluate",
    "export",
    "rm",
    "submit",
    "check",
    "jobs",
    "status",
    "logs",
    "attach",
    "stop",
    "resume",
    "cluster",
    "data",
    "schedule",
    "schema",
    "monitor",
    "manifest",
    "on-cluster",
)
"""In the order of the help. Each is a module here with a function of its name, or with an `app` of commands."""
HIDDEN = ("on-cluster",)
"""Commands for clusters, not for people."""

app = typer.Typer(
    name="lehr",
    help="Train neural networks well, from one short job file, on a laptop or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _name in COMMANDS:
    _word = _name.replace("-", "_")
    _module = import_module(f"lehr.cli.{_word}")
    if hasattr(_module, "app"):
        app.add_typer(_module.app, name=_name)
    else:
        app.command(_name, hidden=_name in HIDDEN)(getattr(_module, _word))


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
