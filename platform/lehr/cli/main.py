"""The command line: a list of small commands, and the one place where a known error becomes one red line."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
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
DEFECT = 70
"""The exit code of what should not have happened: EX_SOFTWARE of sysexits.h."""
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
    except BrokenPipeError:  # `lehr runs | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        fail(f"a defect of lehr, or damaged files: {_keep_trace()}", DEFECT)


def _keep_trace() -> str:
    """Writes the trace of the error that is being handled to a file; returns what and where, in one line."""
    error = sys.exc_info()[1]
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    try:
        descriptor, path = tempfile.mkstemp(prefix="lehr-trace-", suffix=".txt")
        with os.fdopen(descriptor, "w") as file:
            traceback.print_exc(file=file)
    except OSError:
        return what
    return f"{what}; the full trace is in {path}"


def fail(sentence: str, code: int) -> None:
    """One red line on standard error (the rest of several lines plain), and the exit code."""
    first, _, rest = sentence.partition("\n")
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{first}{plain}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
