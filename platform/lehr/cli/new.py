"""`lehr new`: write a job file from a template."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import Force


def new(
    template: Annotated[
        str | None, typer.Argument(help="The template. Without it, the templates are listed.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Argument(help="The file to write. By default TEMPLATE.yaml.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Write a job file from a template, ready to run and to change.

    Example: lehr new
    Example: lehr new train my-job.yaml
    """
    from lehr.job.templates import names, needed, read
    from lehr.output import refuse_existing, write_whole

    if template is None:
        for name in names():
            print(f"{name:24}{_what(read(name))}")
        return
    text = read(template)
    target = file or Path(f"{template.removesuffix('.yaml')}.yaml")
    if target.is_dir():
        target = target / f"{template.removesuffix('.yaml')}.yaml"
    refuse_existing(target, force=force)
    write_whole(target, text)
    for base in needed(text):  # the job files that it extends go beside it
        beside = target.parent / f"{base}.yaml"
        if not beside.exists():
            write_whole(beside, read(base))
            print(f"{beside}: {_what(read(base))}")
    print(f"{target}: {_what(text)}\nRun it: lehr run {target}")


def _what(text: str) -> str:
    """What the template does: the first sentence of its comment."""
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in head).split(". ")[0].rstrip(".")
