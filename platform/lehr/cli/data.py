"""`lehr data`: look at a data set, and pack it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Force
from lehr.errors import JobError, LehrError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lehr.data.load import OpenedSources
    from lehr.job import TrainJob

MOST_CLASSES = 24  # rows of the sample grid
TABLES = (".csv", ".tsv")

app = typer.Typer(help="Look at a data set, and pack it into Parquet files.", no_args_is_help=True)

SourceOf = Annotated[
    str,
    typer.Argument(
        help="A job file, a folder of images or Parquet files, or a source such as torchvision:CIFAR10.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the job: data.path=photos data.image_size=64", show_default=False),
]


@app.command("show")
def show(
    source: SourceOf,
    overrides: Overrides = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The PNG file to write.")] = "samples.png",
    samples: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 4,
    epochs: Annotated[int, typer.Option(min=0, help="Augmented versions to draw beside each image.")] = 2,
    force: Force = False,
) -> None:
    """Draw samples, augmented as in the job, and count the rows per class.

    Example: lehr data show jobs/train.yaml
    Example: lehr data show photos/ data.image_size=64
    """
    import numpy as np
    import torch
    from rich.table import Table

    from lehr.data.decode import DifferentSizes
    from lehr.data.load import OpenedSources, augmentations
    from lehr.data.sample_grid import draw_sample_grid
    from lehr.data.streaming import ThreadDecoder
    from lehr.machine import cores
    from lehr.output import refuse_existing, whole
    from lehr.printing import one_line
    from lehr.screen import console

    refuse_existing(Path(output), force=force)
    job = job_of(source, overrides or [])
    opened, resized = OpenedSources(job, to_train=False), ""
    try:
        streams = opened.stream(ThreadDecoder(cores()))
    except DifferentSizes as error:  # a network gets them in one size, and so they are drawn
        job = job.model_copy(update={"data": job.data.model_copy(update={"image_size": error.side})})
        opened = OpenedSources(job, to_train=False)
        streams = opened.stream(ThreadDecoder(cores()))
        resized = f"{str(error).removeprefix('data: ').capitalize()}, as they are drawn here."
    classes, labels = opened.main.classes, streams["train"].labels
    if opened.kind != "class":
        _count_others(opened, {name: stream.labels for name, stream in streams.items()})
        return
    counts = {name: np.bincount(stream.labels, minlength=len(classes)) for name, stream in streams.items()}
    shown = console()
    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for name in counts:
        table.add_column("rows" if len(counts) == 1 else name, justify="right")
    for label, name in enumerate(classes):
        table.add_row(one_line(name), *(f"{count[label]:,}" for count in counts.values()))
    table.add_row("all", *(f"{count.sum():,}" for count in counts.values()), style="bold")
    shown.print(table)
    for note in (*opened.notes, *filter(None, [resized])):
        shown.print(note, soft_wrap=True)
    chosen = [np.flatnonzero(labels == label)[:samples] for label in range(len(classes))]
    rows = streams["train"].rows(torch.from_numpy(np.concatenate(chosen[:MOST_CLASSES])))
    versions = epochs if job.data.augment else 0
    with whole(Path(output)) as part:
        draw_sample_grid(rows, augmentations(job), counts["train"].tolist(), versions, part)
    shown.print(f"Samples: {output}")


def _count_others(opened: OpenedSources, labels: Mapping[str, Any]) -> None:
    """Counts where a row has no one class: rows that have each class, or what each number is like. Draws no samples."""
    import numpy as np
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console

    shown, numbers = console(), opened.kind == "numbers"
    figures = ("rows", "least", "mean", "most") if numbers else ("rows", "that have it")
    table = Table("number" if numbers else "class", "split", box=None, pad_edge=False, header_style="dim")
    for name in figures:
        table.add_column(name, justify="right")
    for split, values in labels.items():
        for name, column in zip(opened.main.classes, np.asarray(values).T, strict=True):
            told = (np.nanmin(column), np.nanmean(column), np.nanmax(column)) if numbers else ((column > 0).sum(),)
            table.add_row(one_line(name), split, f"{len(column):,}", *(f"{each:.4g}" for each in told))
    shown.print(table)
    for note in opened.notes:
        shown.print(note)
    shown.print("No samples are drawn: they stand in a line for each class, and a row of this task has no one class.")


@app.command("pack")
def pack(
    source: SourceOf,
    target: Annotated[str, typer.Argument(help="Folder or URI to write to, new or empty.", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Write a data set as Parquet files, which jobs read fast.

    A job then uses data: {source: parquet, path: TARGET}.

    Example: lehr data pack torchvision:CIFAR10 data/cifar10
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lehr.data.load import OpenedSources
    from lehr.data.pack import pack as write
    from lehr.screen import console

    opened = OpenedSources(job_of(source, overrides or []), to_train=False)
    main = opened.main
    columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console(sys.stderr)) as progress:
        task = progress.add_task("", total=main.rows + sum(split.rows for split in main.other_splits.values()))
        files = write(main, target, lambda rows: progress.advance(task, rows))
    splits = "".join(f", {split.rows:,} for {name}" for name, split in main.other_splits.items())
    print(f"{main.rows:,} images{splits} in {files} file{'' if files == 1 else 's'}: {target}")


def job_of(source: str, overrides: list[str], like: TrainJob | None = None) -> TrainJob:
    """The job that names the data: a job file, or a job made for a folder, a file or a source.

    Args:
        like: a training whose labels are asked for: a table or Parquet files are read by the columns that it names.
    """
    from lehr.job import TrainJob, from_dict, load, to_dict
    from lehr.own_modules import look_in
    from lehr.trust import give

    if source.endswith((".yaml", ".yml")):
        job = load(source, overrides)
    else:
        job = from_dict({"kind": "train", "data": _data(source, like)}, overrides=overrides)
        give(to_dict(job))
    if not isinstance(job, TrainJob):
        raise LehrError(
            f"{source}: a job of kind {job.kind} has no data section of its own; allowed: a job of kind train"
        )
    look_in(job.folder)  # where the user's own augmentations are
    return job


def _data(source: str, like: TrainJob | None) -> dict[str, Any]:
    from lehr.job.sources import SOURCES, source_form
    from lehr.paths import misspelt_address

    if problem := misspelt_address(source):
        raise JobError(problem)
    if Path(source).exists() or "://" in source:
        learned = like.data if like else None
        columns = {"labels": learned.labels} if learned and learned.labels else {}
        if source.endswith(TABLES) or (learned and learned.source == "table" and Path(source).is_file()):
            return {"source": "table", "path": source, **columns}
        if source.endswith(".parquet") or any(Path(source).rglob("*.parquet")):
            return {"source": "parquet", "path": source, **columns}
        return {"source": "files" if _loose(source) else "images", "path": source}
    if source_form(source) is None:
        allowed = ", ".join(["a path", *(name for name, form in SOURCES.items() if form.path != "required")])
        raise LehrError(f'"{source}" is neither a file or folder here nor a source; allowed: {allowed}')
    return {"source": source}


def _loose(folder: str) -> bool:
    """Whether most images are in the folder itself, and not in subfolders named after classes."""
    from lehr.data.sources.images import list_images

    try:
        names = list_images(folder, lambda field, what: JobError(what, field=field)).files
    except LehrError:
        return False  # opening it will say why
    return sum("/" not in name for name in names) > len(names) / 2
