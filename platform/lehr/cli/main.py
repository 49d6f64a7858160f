"""The command line: help in groups, commands loaded when asked for, and the place where an error becomes one line."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command as build

from lehr.cli.commands import COMMANDS, GROUPS, INTERNAL, Command
from lehr.errors import LehrError

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand
    from typer._click import Context, HelpFormatter

INTERNAL_ERROR = 70
"""The exit code of what should not have happened: EX_SOFTWARE of sysexits.h."""


class Group(TyperGroup):
    """Commands with suggestions for a misspelt one, and with whole summaries, where Click cuts them with "..."."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, ClickCommand | None, list[str]]:
        names = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in names:
            alike = get_close_matches(args[0], names)
            hint = f" Did you mean {' or '.join(alike)}?" if alike else ""
            ctx.fail(f'No such command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)


class Commands(Group):
    """The commands of `lehr`: listed in groups, and imported only when one is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> ClickCommand | None:
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = load(COMMANDS[cmd_name])
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        width = max(len(command.name) for group in GROUPS.values() for command in group)
        for heading, group in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(command.name.ljust(width), command.summary) for command in group])


def load(command: Command) -> ClickCommand:
    """Imports a command, and adds what the table says of it: the summary, and the examples that end its help."""
    module = import_module(f"lehr.cli.{command.module}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if not command.subcommands:
        register = alone.command(
            command.name, short_help=command.summary, epilog=_epilog(command.examples), hidden=command in INTERNAL
        )
        register(getattr(module, command.module))
        return build(alone)
    alone.add_typer(module.app, name=command.name, cls=Group, short_help=command.summary)
    loaded = build(alone)
    assert isinstance(loaded, TyperGroup)
    group = loaded.commands[command.name]
    assert isinstance(group, TyperGroup)
    for name, examples in command.subcommands.items():
        group.commands[name].epilog = _epilog(examples)
    group.epilog = _epilog(tuple(examples[0] for examples in command.subcommands.values()))
    return group


def _epilog(examples: tuple[str, ...]) -> str:
    # \b: Click keeps the lines of the paragraph as they are.
    return "\n".join(["\b", "Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in examples)])


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
    """Entry point of the `lehr` command."""
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
    print(f"{red}{first}{plain}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
