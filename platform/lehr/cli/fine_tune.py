"""`lehr fine-tune`: from a folder of photographs to a trained network, a page, and what to type next."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Debug, Fresh, Storage, Trust, storage_or_default

if TYPE_CHECKING:
    from lehr.runs import RunFolder

Photos = Annotated[
    str,
    typer.Argument(metavar="PHOTOS", help="A folder with a folder of photographs for each class.", show_default=False),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="How long it may take on this machine. [default: as long as the photographs want, up to 10]",
        show_default=False,
    ),
]


def fine_tune(
    photos: Photos,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes: train.epochs=20 model.weights=resnet18.pth", show_default=False),
    ] = None,
    minutes: Minutes = None,
    debug: Debug = False,
    fresh: Fresh = False,
    storage: Storage = None,
    trust: Trust = None,
) -> None:
    """Train a network to tell your photographs apart, from one that knows others.

    Looks at the folder, starts from pretrained weights where they can be had, and trains as long as fits. Typed again,
    it resumes a run that was stopped, and of one that is finished it says where it is. `lehr new photos PHOTOS` writes
    the same as a job file.

    Example: lehr fine-tune photos/
    Example: lehr fine-tune photos/ --minutes 2
    Example: lehr fine-tune photos/ model=resnet50 model.weights=resnet50.pth
    """
    started = time.time()
    from lehr.formatting import format_folder
    from lehr.job import changes_of
    from lehr.kinds import run_job
    from lehr.own_modules import look_in
    from lehr.result import trust_all

    look_in(Path.cwd())  # where a network of the user's own is
    trust_all(trust or (), storage_or_default(storage))
    changes = changes_of(overrides or ())
    if storage:
        changes["storage"] = storage
    again = shlex.join(["lehr", "fine-tune", photos, *(overrides or ())])
    before = time.process_time()
    from lehr.fine_tuning import run_or_job
    from lehr.photos import told_as_typed

    imports = time.process_time() - before
    command = shlex.join(["lehr", *(word for word in sys.argv[1:] if word != "--fresh")])
    known, job = run_or_job(photos, changes, minutes, fresh=fresh, again=again, imports=imports, say=wrapped)
    if known and known.status() == "finished":
        say_finished(known, photos, command)
        return
    with told_as_typed(changes):
        run = run_job(job, debug=debug, fresh=fresh, started=started, command=command)
    where = format_folder(run.folder)
    if job.kind != "transfer":  # which says so itself
        print(f"Report:  {where}/report.html")
    print(*what_next(where, photos), sep="\n")


def say_finished(run: RunFolder, photos: str, command: str) -> None:
    """Says that a run is finished, what to type next, and what to type for another."""
    from lehr.formatting import format_folder, format_metric

    where = format_folder(run.folder)
    best = (run.outcome() or run.progress()).best
    rows = (run.outcome() or run.progress()).measured_rows
    value = None if best.value is None else format_metric(best.value, best.metric, rows)
    told = f", {best.metric.replace('_', ' ')} {value}" if value else ""
    print(f"{run.name} is finished{told}; nothing was trained again")
    print(f"Report:  {where}/report.html")
    print(*what_next(where, photos), sep="\n")
    print(f"Another: {command} {shlex.quote(f'name={run.name}-again')}")
    print(f"Instead: {command} --fresh")


def wrapped(sentence: str) -> None:
    """Prints a sentence, whose rows end between words; a command in it is copied as one line."""
    from lehr.screen import console

    console().print(sentence, soft_wrap=True)


def what_next(run: str, photos: str) -> list[str]:
    """What a person types after a training.

    Args:
        run: the run, as a command takes it.
    """
    from lehr.data.sources.images import ENDINGS

    some = sorted(Path(photos).rglob("*")) if os.path.isdir(photos) else []
    example = next((str(each) for each in some if each.suffix.lower() in ENDINGS), "cat.jpg")
    return [
        f"Predict: {shlex.join(['lehr', 'predict', run, example])}",
        f"Serve:   {shlex.join(['lehr', 'serve', run])}",
    ]
