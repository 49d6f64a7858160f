"""`lehr predict`: what a run says of one image, of a folder of them, or of every row of a data set."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import Debug, Force, RunName, Storage, Trust, storage_or_default
from lehr.errors import JobError

if TYPE_CHECKING:
    from lehr.predict.answers import Answer, ImageFile

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, with or without labels, or of Parquet files; a source, such as torchvision:CIFAR10; "
        "or a job file, whose data are used.",
        show_default=False,
    ),
]
STDIN = "-"
MOST_SIDE = 4096  # pixels of a picture that is left beside the answer
SHOWN = 5  # of a folder's least certain images
DATA_FILES = (".yaml", ".yml", ".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl", ".tar", ".npz", ".npy")


def predict(
    run: RunName,
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE… | FOLDER | DATA OUT",
            help="Images (- for one from standard input) or a folder of images, whose classes are shown. Or a data "
            "set, as a folder, a file, a source or a job file, and the folder or URI for Parquet files.",
            show_default=False,
        ),
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Images: how many classes to show of each. [default: 3]", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Images: print JSON, a list with an entry for each.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder of images: the page to write. [default: predictions.html]"),
    ] = None,
    force: Force = False,
    split: Annotated[
        str | None, typer.Option(help="A data set: train, validation or test. [default: train]", show_default=False)
    ] = None,
    members: Annotated[
        bool, typer.Option("--members", help="A data set: also write the probabilities of each member of an ensemble.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="A data set: images per forward pass. [default: 256]", show_default=False)
    ] = None,
    debug: Debug = False,
    storage: Storage = None,
    trust: Trust = None,
) -> None:
    """Predict images, and show their classes; or every row of a data set, into Parquet files.

    All members of an ensemble predict in a single pass. Of a data set, parts that an earlier attempt wrote are kept.

    Example: lehr predict train cat.jpg
    Example: lehr predict train photos/
    Example: lehr predict train photos/ predictions/
    Example: lehr predict snapshot-ensemble torchvision:CIFAR10 predictions/ --members
    """
    started = time.time()
    if shows_answers(places, run):
        of_data = {"--split": split, "--members": members, "--batch-size": batch_size, "--debug": debug}
        _refuse(of_data, "belongs to a data set: lehr predict RUN DATA OUT")
        _show_answers(run, places, top or 3, as_json, output, force, storage, trust)
        return
    of_images = {"--top": top, "--json": as_json, "--output": output, "--force": force}
    _refuse(of_images, "belongs to images: lehr predict RUN IMAGE… or lehr predict RUN FOLDER")
    _predict_data_set(run, places, split or "train", members, batch_size or 256, debug, storage, trust, started)


def shows_answers(places: list[str], run: str) -> bool:
    """Whether what is given are images, or a folder of them, whose classes are to be shown.

    Raises JobError for a mixture, and for a data set without a place for its predictions.
    """
    from lehr.job.sources import source_form

    files = [place for place in places if place == STDIN or (os.path.isfile(place) and not place.endswith(DATA_FILES))]
    if len(files) == len(places):
        return True
    only = places[0]
    if len(places) == 1:
        if os.path.isdir(only) and not any(Path(only).rglob("*.parquet")):
            return True
        if "://" in only or os.path.exists(only) or source_form(only):
            raise JobError(f"{only}: name the folder for the Parquet files too: lehr predict {run} {only} predictions/")
        raise JobError(f'"{only}" does not exist here; allowed: images, a folder of images, or DATA OUT')
    if files or len(places) > 2:
        others = [place for place in places if place not in files]
        missing = [place for place in others if not os.path.exists(place)]
        what = f'"{missing[0]}" does not exist here' if missing else f"{others[0]} is not one image"
        raise JobError(f"{what}; allowed: several images, one folder of images, or DATA OUT")
    return False


def _refuse(options: Mapping[str, object], why: str) -> None:
    for name, value in options.items():
        if value not in (None, False):
            raise JobError(f"{name} {why}")


def _show_answers(
    run: str,
    places: list[str],
    top: int,
    as_json: bool,
    output: Path | None,
    force: bool,
    storage: str | None,
    trust: list[str] | None,
) -> None:
    folder = places[0] if len(places) == 1 and os.path.isdir(places[0]) else None
    if folder is None and output:
        raise JobError("--output belongs to a folder of images, which gets a page")
    page = output or Path("predictions.html")
    if output and not as_json:
        from lehr.output import refuse_existing

        refuse_existing(page, force=force)
    from lehr.machine import cores
    from lehr.own_modules import look_in
    from lehr.result import find, trust_all

    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    files = images_in(folder) if folder else [image_at(place) for place in places]

    import torch

    from lehr.predict import load_predictor
    from lehr.predict.answers import answers, draws
    from lehr.predict.page import THUMBNAIL

    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = load_predictor(found.record.folder).to(device)
    if force and not folder and (as_json or not draws(predictor.task)):
        raise JobError("--force belongs to a folder of images, which gets a page, or to images that get a picture")
    given = list(answers(predictor, files, 0 if as_json else THUMBNAIL if folder else MOST_SIDE))
    if as_json:
        print(json.dumps([each.to_json(top) for each in given], indent=1, ensure_ascii=False))
    elif folder:
        _summarise(given, top)
        from lehr.formatting import format_path
        from lehr.output import write_unless_theirs
        from lehr.predict.page import answers_page

        why_not = write_unless_theirs(page, answers_page(found.name, given, files), force=force)
        print(why_not or f"Page: {format_path(page.absolute())}")
    else:
        _print(given, top)
        _leave_pictures(given, force)
    if not folder and any(each.problem for each in given):
        raise typer.Exit(1)


def _leave_pictures(given: list[Answer], force: bool) -> None:
    """Of images in which places were found: each with these in colours, here, and where it is."""
    from lehr.formatting import format_path
    from lehr.output import marked, write_unless_theirs

    for each in given:
        if each.picture:
            path = Path(f"{Path(each.name).stem if each.name != STDIN else 'image'}-found.png")
            why_not = write_unless_theirs(path, marked(each.picture), force=force)
            print(why_not or f"Picture: {format_path(path.absolute())}")


def image_at(place: str) -> ImageFile:
    """An image that the user names: a file, or `-` for what comes from standard input."""
    return (place, sys.stdin.buffer.read if place == STDIN else Path(place).read_bytes)


def images_in(folder: str) -> list[ImageFile]:
    """The images of a folder and its subfolders, by name. Raises JobError where there are none."""
    from lehr.data.sources.images import ENDINGS, list_images

    listing = list_images(folder, lambda _, what: JobError(what))
    for note in listing.left_out:
        print(note, file=sys.stderr)
    if not listing.files:
        raise JobError(f"{folder}: there is no image in it, nor in its folders; read are {', '.join(ENDINGS)}")
    return [(name, Path(folder, name).read_bytes) for name in listing.files]


def _print(given: list[Answer], top: int) -> None:
    """A line for each image: its name, then its classes, the most probable first."""
    from lehr.printing import one_line

    wide = max(len(one_line(each.name)) for each in given)
    for each in given:
        if each.problem:
            print(f"{one_line(each.name)}: not readable: {one_line(each.problem)}", file=sys.stderr)
            continue
        classes = "   ".join(f"{one_line(name)} {figure}".rstrip() for name, figure in each.told(top))
        print(f"{one_line(each.name):<{wide}}  {classes}")


def _summarise(given: list[Answer], top: int) -> None:
    """How many images of each class there are, and the least certain ones."""
    from lehr.formatting import count_of
    from lehr.predict.answers import counts, least_certain
    from lehr.printing import one_line

    classes = ", ".join(f"{one_line(name)} {count:,}" for name, count in counts(given))
    print(count_of(len(given), "image") + (f": {classes}" if classes else ""))
    if problems := [each for each in given if each.problem]:
        some = ", ".join(f"{one_line(each.name)} ({one_line(each.problem)})" for each in problems[:3])
        print(f"{len(problems):,} not readable: {some}{', …' if len(problems) > 3 else ''}")
    if doubtful := least_certain(given)[:SHOWN]:
        print("The least certain:" if classes else "The first:")
        _print(doubtful, top)


def _predict_data_set(
    run: str,
    places: list[str],
    split: str,
    members: bool,
    batch_size: int,
    debug: bool,
    storage: str | None,
    trust: list[str] | None,
    started: float,
) -> None:
    from lehr.cli.data import job_of
    from lehr.driver import choose_run_folder
    from lehr.job import from_dict, to_dict
    from lehr.job.predict import OF_PREDICTIONS
    from lehr.kinds import run_job
    from lehr.result import trust_all

    data, out = places
    trust_all(trust or (), storage_or_default(storage))
    named = to_dict(job_of(data, []).data)  # of a job file, what does not only concern training
    section = {name: named[name] for name in OF_PREDICTIONS}
    job = from_dict(
        {
            "kind": "predict",
            "run": run,
            "data": section,
            "split": split,
            "out": out,
            "members": members,
            "batch_size": batch_size,
            "storage": storage_or_default(storage),
        }
    )
    _, existing = choose_run_folder(job, fresh=False)
    finished = existing is not None and existing.status() == "finished"  # it is then repeated
    run_job(job, debug=debug, fresh=finished, started=started, command=shlex.join(["lehr", *sys.argv[1:]]))
