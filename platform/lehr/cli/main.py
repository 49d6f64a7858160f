"""The command line: help in groups, commands loaded when asked for, and the place where an error becomes one line."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command as build

from lehr.cli.commands import GROUPS, INTERNAL, SUMMARIES
from lehr.errors import LehrError
from lehr.printing import REPLACED, PrintableStream, columns_of, in_rows, printable, raw

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

INTERNAL_ERROR = 70
"""The exit code of what should not have happened: EX_SOFTWARE of sysexits.h."""
EXAMPLE = "Example: "
"""How a line of a docstring starts that is an example."""


class Group(TyperGroup):
    """Commands with suggestions for a misspelt one, and with whole summaries, where Click cuts them with "..."."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        names = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in names:
            alike = get_close_matches(args[0], names)
            hint = f" Did you mean {' or '.join(alike)}?" if alike else ""
            ctx.fail(f'No such command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)


class Commands(Group):
    """The commands of `lehr`: listed in groups, and imported only when one is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands and cmd_name in SUMMARIES:
            self.commands[cmd_name] = load(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        width = max(len(name) for group in GROUPS.values() for name in group)
        for heading, group in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in group.items()])


def load(name: str) -> Command:
    """Imports a command. The examples of its docstring move to the end of its help."""
    word = name.replace("-", "_")
    module = import_module(f"lehr.cli.{word}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if not hasattr(module, "app"):
        alone.command(name, hidden=name in INTERNAL, short_help=SUMMARIES[name])(getattr(module, word))
        command = build(alone)
        show_examples(command)
        return command
    alone.add_typer(module.app, name=name, cls=Group, short_help=SUMMARIES[name])
    parent = build(alone)
    assert isinstance(parent, TyperGroup)
    group = parent.commands[name]
    assert isinstance(group, TyperGroup)
    first = [show_examples(command)[:1] for command in group.commands.values()]
    group.epilog = examples_section([example for examples in first for example in examples])
    return group


def show_examples(command: Command) -> list[str]:
    """Moves the lines `Example: …` of a command's help to the end of it; returns the examples."""
    lines = inspect.cleandoc(command.help or "").splitlines()
    examples = [line.removeprefix(EXAMPLE) for line in lines if line.startswith(EXAMPLE)]
    command.help = "\n".join(line for line in lines if not line.startswith(EXAMPLE)).strip()
    command.epilog = examples_section(examples)
    return examples


def examples_section(examples: list[str]) -> str | None:
    """The end of a command's help."""
    if not examples:
        return None
    # \b: Click keeps the lines of this paragraph as they are.
    return "\n".join(["\b", "Example:" if len(examples) == 1 else "Examples:", *(f"  {each}" for each in examples)])


app = typer.Typer(
    name="lehr",
    cls=Commands,
    help="Train neural networks well, from one short job file, on a laptop or a cluster.",
    epilog="Help and examples for one command: lehr COMMAND --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def show_versions(wanted: bool) -> None:
    """Prints the versions that a bug report needs, without importing torch or Ray."""
    if not wanted:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from lehr import __version__

    def installed(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} not installed"

    print(f"lehr {__version__} (Python {platform.python_version()}, {installed('torch')}, {installed('ray')})")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_versions, is_eager=True, help="Show the versions of lehr and what it runs on."
        ),
    ] = False,
) -> None:
    """Options of `lehr` itself."""


def main() -> None:
    """Entry point of the `lehr` command. Whatever it prints is printable: see `lehr.printing`.

    Where Ray was used, it ends this process and never returns.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal without Unicode shows what it can
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=REPLACED)
    sys.stdout, sys.stderr = PrintableStream(sys.stdout), PrintableStream(sys.stderr)
    try:
        run_command()
    except SystemExit as ending:
        if "ray" not in sys.modules:
            raise
        from lehr.driver.signals import finish

        finish(ending.code if isinstance(ending.code, int) else int(ending.code is not None))


def run_command() -> None:
    """Runs the command that the arguments name, and raises SystemExit with its exit code."""
    try:
        app(prog_name="lehr")
    except LehrError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)
    except BrokenPipeError:  # `lehr runs | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        fail(f"internal error of lehr, or damaged files: {_keep_trace()}", INTERNAL_ERROR)


def _keep_trace() -> str:
    """Writes the traceback of the error being handled to a file; returns the error and that file, in one line."""
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
    """Prints the first line in red and any further lines plain, on standard error, and exits with the code."""
    first, _, rest = sentence.partition("\n")
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    with suppress(OSError):  # a terminal that is closed
        if sys.stderr.isatty():
            first, rest = (in_rows(printable(each), columns_of(raw(sys.stderr))) for each in (first, rest))
        text = f"{red}{printable(first)}{plain}" + (f"\n{printable(rest)}" if rest else "")
        print(text, file=raw(sys.stderr), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
