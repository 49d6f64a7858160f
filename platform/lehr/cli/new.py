"""`lehr new`: a job file from a template."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from lehr.errors import LehrError


def new(
    template: Annotated[str | None, typer.Argument(help="A template; none lists them.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Argument(help="The file to write. By default TEMPLATE.yaml here.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a job template, ready to run and to change."""
    from lehr.job.templates import names, needed, read

    if template is None:
        for name in names():
            print(f"{name:24}{_what(read(name))}")
        return
    text = read(template)
    target = file or Path(f"{template.removesuffix('.yaml')}.yaml")
    if target.is_dir():
        target = target / f"{template.removesuffix('.yaml')}.yaml"
    if target.exists() and not force:
        raise LehrError(f"{target} is there already; name another file, or replace it with --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    for base in needed(text):  # what it extends lies beside it
        beside = target.parent / f"{base}.yaml"
        if not beside.exists():
            beside.write_text(read(base), encoding="utf-8")
            print(f"{beside}: {_what(read(base))}")
    print(f"{target}: {_what(text)}\nRun it: lehr run {target}")


def _what(text: str) -> str:
    """What the template does: the first sentence of its head, or of a long one the part before its colon."""
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    sentence = " ".join(line.removeprefix("#").strip() for line in head).split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= 100 else sentence.split(": ")[0]
