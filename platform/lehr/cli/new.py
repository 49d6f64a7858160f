"""`lehr new`: write a job file from a template, or for a folder of photographs."""

from __future__ import annotations

import os
import re
import shlex
import time
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.fine_tune import Minutes
from lehr.cli.options import Force

PHOTOS = "photos"
PHOTOS_DO = "Tell your photographs apart, in a folder for each class"


def new(
    template: Annotated[
        str | None, typer.Argument(help="The template. Without it, the templates are listed.", show_default=False)
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]",
            help="The file to write. By default TEMPLATE.yaml. For photos: the folder of photographs, the file, and "
            "changes (train.epochs=20).",
            show_default=False,
        ),
    ] = None,
    minutes: Minutes = None,
    force: Force = False,
) -> None:
    """Write a job file from a template, ready to run and to change.

    Example: lehr new
    Example: lehr new train my-job.yaml
    Example: lehr new photos flowers/
    """
    from lehr.errors import JobError
    from lehr.job.templates import names, read

    if template is None:
        listed = {**{name: _what(read(name)) for name in names()}, f"{PHOTOS} FOLDER": PHOTOS_DO}
        for name, what in sorted(listed.items()):
            print(f"{name:24}{what}")
        return
    given = places or []
    if template == PHOTOS:
        _for_photos(given, minutes, force)
        return
    if minutes is not None:
        raise JobError("belongs to lehr new photos FOLDER", field="--minutes")
    if len(given) > 1:
        raise JobError(f"{given[1]} is one word too many; allowed: lehr new TEMPLATE FILE")
    _from_template(template.removesuffix(".yaml"), given[0] if given else None, force)


def _from_template(template: str, file: str | None, force: bool) -> None:
    from lehr.job.templates import needed, read

    text = read(template)
    target = _target(file, f"{template}.yaml", force)
    bases = {base: target.parent / f"{base}.yaml" for base in needed(text)}  # they go beside it
    _write(target, _with_paths(text, {template: target, **bases}))
    for base, beside in bases.items():
        if not beside.exists():
            _write(beside, _with_paths(read(base), {template: target, **bases}))
            print(f"{beside}: {_what(read(base))}")
    print(f"{target}: {_what(text)}\nRun it: {shlex.join(['lehr', 'run', str(target)])}")


def _for_photos(places: list[str], minutes: float | None, force: bool) -> None:
    from lehr.errors import JobError

    changes = [word for word in places if "=" in word and not os.path.exists(word)]
    places = [word for word in places if word not in changes]
    if not places:
        raise JobError(
            "name the folder of your photographs, with a folder for each class in it (flowers/rose/1.jpg, "
            "flowers/tulip/7.jpg): lehr new photos flowers/"
        )
    if len(places) > 2:
        raise JobError(f"{places[2]} is one word too many; allowed: lehr new photos FOLDER FILE")
    folder, file = places[0], places[1] if len(places) > 1 else None
    from lehr.cli.fine_tune import what_next, wrapped
    from lehr.fine_tuning import run_name

    target = _target(file, f"{run_name(folder, None, {})}.yaml", force)
    before = time.process_time()
    from lehr.job import parse_overrides
    from lehr.own_modules import look_in
    from lehr.photos import as_yaml, photo_job

    imports = time.process_time() - before
    look_in(Path.cwd())  # where a network of the user's own is
    again = shlex.join(["lehr", "new", PHOTOS, *places, *changes, *(["--force"] if force else [])])
    made = photo_job(folder, parse_overrides(changes), minutes, again=again, imports=imports, say=wrapped)
    data = made.said.get("base", made.said)["data"]
    if "://" not in data["path"]:
        data["path"] = os.path.relpath(data["path"], target.parent)
    run = shlex.join(["lehr", "run", str(target)])
    about = [line for each in made.told for line in each.splitlines()]
    then = [line.partition(" ")[2].strip() for line in what_next(f"runs/{target.stem}", folder)]
    _write(target, as_yaml(made.said, [*about, *(f"  {line}" for line in (run, *then))]))
    print(f"{target}: written\nRun it: {run}")


def _target(file: str | None, name: str, force: bool) -> Path:
    from lehr.output import refuse_existing

    target = Path(file or name)
    if target.is_dir():
        target = target / name
    refuse_existing(target, force=force)
    return target


def _write(target: Path, text: str) -> None:
    from lehr.output import write_whole

    write_whole(target, text)


def _with_paths(text: str, written: dict[str, Path]) -> str:
    """The template with the files just written in its comments, in place of those that come with lehr."""
    return re.sub(
        r"\bjobs/([\w-]+)\.yaml",
        lambda found: shlex.quote(str(written.get(found[1], found[0]))),
        text,
    )


def _what(text: str) -> str:
    """What the template does: the first sentence of its comment."""
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in head).split(". ")[0].rstrip(".")
