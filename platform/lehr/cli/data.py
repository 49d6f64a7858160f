"""`lehr data`: look at a data set, and pack it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import AsJson, Force, print_json
from lehr.errors import JobError, LehrError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lehr.data.audit import Audit
    from lehr.data.load import OpenedSources
    from lehr.data.streaming import Stream
    from lehr.job import TrainJob

MOST_CLASSES = 24  # rows of the sample grid
MOST_CAPTIONS = 5

app = typer.Typer(help="Look at a data set, and pack it into Parquet files.", no_args_is_help=True)

SourceOf = Annotated[
    str,
    typer.Argument(
        help="A job file, a path of data in any form, or a source such as torchvision:CIFAR10.",
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
    output: Annotated[str, typer.Option("--output", "-o", help="The PNG file of samples to write.")] = "samples.png",
    page: Annotated[str, typer.Option(help="The page of pictures to write.")] = "data.html",
    samples: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 4,
    epochs: Annotated[int, typer.Option(min=0, help="Augmented versions to draw beside each image.")] = 2,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Say what data hold: form, classes, sizes, duplicates, leaks between splits, doubtful labels; and draw samples.

    With --json nothing is drawn.

    Example: lehr data show jobs/train.yaml
    Example: lehr data show photos/ data.image_size=64
    """
    from lehr.data.audit import audit
    from lehr.data.audit_told import as_plain, audit_page
    from lehr.data.load import held_out_rows
    from lehr.machine import cores
    from lehr.output import refuse_existing, whole
    from lehr.screen import console

    if not as_json:
        refuse_existing(Path(output), force=force)
        refuse_existing(Path(page), force=force)
    job = job_of(source, overrides or [])
    opened, streams, resized = _decodable(job)
    notes = (*opened.notes, *filter(None, [resized, _order(opened, streams)]))
    held_out = held_out_rows(opened.job, opened)
    found = audit(opened.sources, opened.wanted, opened.job.seed, cores(), held_out=held_out)
    if as_json:
        print_json(as_plain(found, opened.main, notes))
        return
    shown = console()
    for note in notes[:1]:
        shown.print(note, soft_wrap=True)
    _count(opened, {name: stream.labels for name, stream in streams.items()})
    for note in (*notes[1:], *_facts(found)):
        shown.print(note, soft_wrap=True)
    for _, sentence in sentences_of(found, opened):
        shown.print(f"{sentence[:1].upper()}{sentence[1:]}.", soft_wrap=True)
    grid = None
    if opened.kind == "class":
        grid = Path(output)
        _draw(opened, streams["train"], grid, samples, epochs)
        shown.print(f"Samples: {output}")
    with whole(Path(page)) as part:
        part.write_text(audit_page(source, found, opened.sources, notes, opened.wanted, grid), encoding="utf-8")
    shown.print(f"Page: {page}")


def _decodable(job: TrainJob) -> tuple[OpenedSources, dict[str, Stream], str]:
    """The data, opened; where images differ in size, in one that a network could get, and a sentence about it."""
    from lehr.data.decode import DifferentSizes
    from lehr.data.load import OpenedSources
    from lehr.data.streaming import ThreadDecoder
    from lehr.machine import cores

    opened = OpenedSources(job, to_train=False)
    try:
        return opened, opened.stream(ThreadDecoder(cores())), ""
    except DifferentSizes as error:
        job = job.model_copy(update={"data": job.data.model_copy(update={"image_size": error.side})})
        opened = OpenedSources(job, to_train=False)
        said = f"{str(error).removeprefix('data: ').capitalize()}, as they are drawn here."
        return opened, opened.stream(ThreadDecoder(cores())), said


def _order(opened: OpenedSources, streams: Mapping[str, Stream]) -> str:
    """How well the training rows are shuffled, of a job that streams them; else empty."""
    from lehr.data.load import splits
    from lehr.data.streaming import StreamedSubset

    job = opened.job
    if job.data.cache != "stream":
        return ""
    rows = splits(job, streams).train
    return rows.order_told(job.train.batch_size, job.data.shards) if isinstance(rows, StreamedSubset) else ""


def sentences_of(found: Audit, opened: OpenedSources) -> list[tuple[str, str]]:
    from lehr.data.audit_told import sentences
    from lehr.printing import one_line

    return [(what, one_line(sentence)) for what, sentence in sentences(found, opened.main.classes)]


def _facts(found: Audit) -> list[str]:
    """Sizes and channels of each split, a line each."""
    lines = []
    for name, facts in found.splits.items():
        sizes = [f"{width} × {height}" for width, height in (facts.smallest, facts.median, facts.largest)]
        span = f"all {sizes[0]}" if facts.sizes < 2 else f"{sizes[0]} to {sizes[2]}, half of them up to {sizes[1]}"
        modes = ", ".join(f"{count:,} {mode}" for mode, count in sorted(facts.modes.items()))
        lines.append(f"{name}: {span} pixels; {modes}")
    return lines


def _draw(opened: OpenedSources, stream: Stream, target: Path, samples: int, epochs: int) -> None:
    """Samples of each class, augmented as in the job."""
    import numpy as np
    import torch

    from lehr.data.load import augmentations
    from lehr.data.sample_grid import draw_sample_grid
    from lehr.output import whole

    labels, classes = np.asarray(stream.labels), opened.main.classes
    chosen = [np.flatnonzero(labels == label)[:samples] for label in range(len(classes))]
    rows = stream.rows(torch.from_numpy(np.concatenate(chosen[:MOST_CLASSES])))
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    with whole(target) as part:
        draw_sample_grid(rows, augmentations(opened.job), counts, epochs if opened.job.data.augment else 0, part)


def _count(opened: OpenedSources, labels: Mapping[str, Any]) -> None:
    """Prints the rows of each class, or what each number is like."""
    import numpy as np
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console

    classes, shown = opened.main.classes, console()
    if opened.kind != "class":
        _count_others(opened, labels)
        return
    counts = {name: np.bincount(each, minlength=len(classes)) for name, each in labels.items()}
    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for name in counts:
        table.add_column("rows" if len(counts) == 1 else name, justify="right")
    for label, name in enumerate(classes):
        table.add_row(one_line(name), *(f"{count[label]:,}" for count in counts.values()))
    table.add_row("all", *(f"{count.sum():,}" for count in counts.values()), style="bold")
    shown.print(table)


def _count_others(opened: OpenedSources, labels: Mapping[str, Any]) -> None:
    """Counts where a row has no one class: rows that have each class, or what each number is like."""
    import numpy as np
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console

    shown, numbers = console(), opened.kind == "numbers"
    if opened.kind == "boxes":
        _count_boxes(opened, labels)
        return
    if opened.kind == "mask":
        _count_pixels(opened)
        return
    if opened.kind == "captions":
        _count_captions(labels)
        return
    figures = ("rows", "least", "mean", "most") if numbers else ("rows", "that have it")
    table = Table("number" if numbers else "class", "split", box=None, pad_edge=False, header_style="dim")
    for name in figures:
        table.add_column(name, justify="right")
    for split, values in labels.items():
        for name, column in zip(opened.main.classes, np.asarray(values).T, strict=True):
            told = (np.nanmin(column), np.nanmean(column), np.nanmax(column)) if numbers else ((column > 0).sum(),)
            table.add_row(one_line(name), split, f"{len(column):,}", *(f"{each:.4g}" for each in told))
    shown.print(table)
    shown.print("No samples are drawn: they stand in a line for each class, and a row of this task has no one class.")


def _count_pixels(opened: OpenedSources) -> None:
    """Counts the pixels of each class in the first masks of each split, and the masks that have some."""
    import numpy as np
    from rich.table import Table

    from lehr.data.sources.masks import first_masks
    from lehr.printing import one_line
    from lehr.screen import console

    shown, looked = console(), []
    table = Table("class", "split", box=None, pad_edge=False, header_style="dim")
    for name in ("of all pixels", "images with it"):
        table.add_column(name, justify="right")
    for split, source in opened.sources.items():
        masks = first_masks(source)
        counts = np.array([np.bincount(mask.ravel(), minlength=256) for mask in masks])
        looked.append(f"{len(masks):,} of {source.rows:,} of {split}")
        for number, name in enumerate(opened.main.classes):
            share, there = counts[:, number].sum() / max(1, counts.sum()), int((counts[:, number] > 0).sum())
            table.add_row(one_line(name), split, f"{share:.2%}", f"{there:,} of {len(masks):,}")
        if counts[:, 255].sum():
            table.add_row("not counted", split, f"{counts[:, 255].sum() / counts.sum():.2%}", "")
    shown.print(table)
    for note in (*opened.notes, f"Masks that were counted: {', '.join(looked)}."):
        shown.print(note, soft_wrap=True)


def _count_captions(labels: Mapping[str, Any]) -> None:
    """Counts images, captions and words of each split, and tells the most frequent captions."""
    from collections import Counter

    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console
    from lehr.tasks.caption_text import from_bytes, words_of

    table = Table("split", box=None, pad_edge=False, header_style="dim")
    for name in ("images", "captions", "words", "different words", "longest"):
        table.add_column(name, justify="right")
    often: Counter[str] = Counter()
    for split, found in labels.items():
        captions = [each for row in range(len(found)) for each in from_bytes(found.row(row)) if each]
        words = [words_of(each) for each in captions]
        kinds = {word for each in words for word in each}
        counts = (len(found), len(captions), sum(map(len, words)), len(kinds), max(map(len, words), default=0))
        table.add_row(one_line(split), *(f"{count:,}" for count in counts))
        often.update(captions)
    console().print(table)
    for caption, count in often.most_common(MOST_CAPTIONS):
        console().print(f"{count:,} × {one_line(caption)}", markup=False)


def _count_boxes(opened: OpenedSources, labels: Mapping[str, Any]) -> None:
    """Counts boxes by class and split, and the images that have some, and tells how large they are."""
    import numpy as np
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.screen import console

    shown = console()
    table = Table("class", "split", box=None, pad_edge=False, header_style="dim")
    for name in ("boxes", "images with it", "width", "height"):
        table.add_column(name, justify="right")
    for split, found in labels.items():
        row_of = np.repeat(np.arange(len(found)), found.lengths)
        for number, name in enumerate(opened.main.classes):
            chosen = found.values[:, 0] == number
            sides = (found.values[chosen, 3:5] - found.values[chosen, 1:3]).reshape(-1, 2)
            middle = [f"{each:.0f}" for each in np.median(sides, axis=0)] if len(sides) else ["", ""]
            images = len(np.unique(row_of[chosen]))
            table.add_row(one_line(name), split, f"{len(sides):,}", f"{images:,} of {len(found):,}", *middle)
    shown.print(table)
    for note in (*opened.notes, "Width and height are medians, in pixels."):
        shown.print(note, soft_wrap=True)


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
    from lehr.job import FoldsJob, TrainJob, fold_job, from_dict, load, to_dict
    from lehr.job.sources import source_form
    from lehr.own_modules import look_in
    from lehr.trust import give

    if source.endswith((".yaml", ".yml")):
        job = load(source, overrides)
    else:
        data = _data(source, like)
        form = source_form(data.get("source", "auto"))
        task = {"task": form.task} if form and form.task else {}
        if _captioned(source, data):
            task = {"task": "captioning"}
        job = from_dict({"kind": "train", "data": data, **task}, overrides=overrides)
        give(to_dict(job))
    if isinstance(job, FoldsJob):
        job = fold_job(job, 1)
    if not isinstance(job, TrainJob):
        raise LehrError(
            f"{source}: a job of kind {job.kind} has no data section of its own; allowed: a job of kind train"
        )
    look_in(job.folder)  # where the user's own augmentations are
    return job


def _data(source: str, like: TrainJob | None) -> dict[str, Any]:
    from lehr.data.sources.shards import is_pattern
    from lehr.job.sources import SOURCES, source_form
    from lehr.paths import misspelt_address

    if problem := misspelt_address(source):
        raise JobError(problem)
    if Path(source).exists() or "://" in source or is_pattern(source):
        if _masked(source):
            return {"source": "masks", "path": source}
        if _annotated(source):
            return {"source": "annotations", "path": source}
        learned = like.data.columns.model_dump(exclude_none=True) if like else {}
        return {"path": source, **({"columns": learned} if learned else {})}
    if source_form(source) is None:
        allowed = ", ".join(["a path", *(name for name, form in SOURCES.items() if form.path != "required")])
        raise LehrError(f'"{source}" is neither a file or folder here nor a source; allowed: {allowed}')
    return {"source": source}


def _masked(source: str) -> bool:
    """Whether these are images with masks in files beside them, by the names of what is there."""
    from lehr.data.sources.mask_pairs import in_pairs

    return "://" not in source and Path(source).is_dir() and in_pairs(source)


def _captioned(source: str, data: Mapping[str, Any]) -> bool:
    """Whether a path has images with captions, in COCO's JSON, and no boxes."""
    from lehr.data.sources.captions import has_captions

    return (
        data.get("source") != "annotations" and "://" not in source and Path(source).exists() and has_captions(source)
    )


def _annotated(source: str) -> bool:
    """Whether these are images with boxes: COCO JSON, Pascal VOC or YOLO, by the names of what is there."""
    from lehr.data.sources.annotations import is_annotated

    return "://" not in source and Path(source).is_dir() and is_annotated(source)
