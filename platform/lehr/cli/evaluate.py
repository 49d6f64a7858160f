"""`lehr evaluate`: measure a run on a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehr.cli.options import AsJson, Force, RunName, Storage, Trust, print_json, storage_or_default
from lehr.cli.predict import DataSet

WIDE = 100  # columns that the table of classes takes with all intervals

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lehr.predict.evaluate import Evaluation, OtherEvaluation
    from lehr.predict.own_rows import Measured


def evaluate(
    run: RunName,
    data: DataSet,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the data, which are then not the run's own: data.limit=9", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, validation or test: a split of the data's own, or the rows that the run trained on or held "
            "out, where they are its data. [default: all rows for training]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG file to write the confusion matrix to. [default: confusion.png]"),
    ] = None,
    storage: Storage = None,
    trust: Trust = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure a run on labelled data: accuracy, recall, precision and F1 of each class, and the confusion matrix.

    Of numbers and of several classes a row: what the task measures, with a line for each number or class.

    Example: lehr evaluate train photos/
    Example: lehr evaluate cifar10 data/cifar10 --split test
    Example: lehr evaluate train jobs/train.yaml --split validation
    Example: lehr evaluate theirs/run photos/ --trust theirs/run
    """
    import torch

    from lehr.cli.data import job_of
    from lehr.formatting import format_folder, format_path
    from lehr.intervals import in_words
    from lehr.job import from_dict, to_dict
    from lehr.machine import cores
    from lehr.output import refuse_existing, write_unless_theirs
    from lehr.own_modules import look_in
    from lehr.predict import load_predictor
    from lehr.predict.evaluate import confusion_picture, evaluate_other
    from lehr.predict.evaluate import evaluate as measure
    from lehr.predict.own_rows import refuse_seen_by_folds, rows_of, training_of
    from lehr.result import find, trust_all
    from lehr.screen import console
    from lehr.trust import calls_of, check

    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = training_of(from_dict(found.training_run().job))
    calls = calls_of(to_dict(trained)) if trained else []
    check([call for call in calls if call.field == "task"], format_folder(found.record.folder))  # says which labels
    job = job_of(data, overrides or [], like=trained)
    if found.record.job.get("kind") == "folds" and trained and not overrides:
        refuse_seen_by_folds(found.record.name, split, job, trained)
    chosen = rows_of(split, job, None if overrides else trained)  # data that are changed are not the run's own
    if trained and not job.metrics:
        check([call for call in calls if call.field == "metric"], format_folder(found.record.folder))
    source = chosen.source
    predictor = load_predictor(found.record.folder, all_members=True).to(device)
    if output and not as_json:
        refuse_existing(output, force=force)  # after what is wrong with run and data, and before any work
    torch.set_num_threads(cores())
    about = {"run": found.name, "data": source.name, "split": split}
    if predictor.task.labels != "class":
        without_classes = evaluate_other(predictor, source, rows=chosen.rows)
        if as_json:
            print_json({**about, **without_classes.to_json()})
            return
        shown = console()
        for note in source.notes:
            shown.print(note)
        _show_other(shown, without_classes, chosen)
        return
    measured = measure(predictor, source, rows=chosen.rows, job=job if job.metrics else trained)
    if as_json:
        print_json({**about, **measured.to_json()})
        return
    shown = console()
    for note in source.notes:
        shown.print(note)
    shown.print(
        f"Accuracy {in_words(measured.accuracy, measured.rows)} on {measured.rows:,} rows{chosen.said}; "
        f"log loss {measured.loss:.4f}, "
        f"calibration error {measured.calibration:.2%}"
        + (f", among the five most probable {in_words(measured.top5, measured.rows)}" if measured.top5 else "")
    )
    if measured.own:
        shown.print(", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measured.own.items()))
    if measured.members:
        members = [f"{name} {in_words(value, measured.rows)}" for name, value in measured.members.items()]
        shown.print("Members: " + ", ".join(members))
    if measured.unreadable:
        names = ", ".join(source.name_of(row) for row, _ in measured.unreadable[:3])
        more = ", …" if len(measured.unreadable) > 3 else ""
        count = len(measured.unreadable)
        shown.print(f"{count} unreadable image{'s' * (count > 1)}, not counted: {names}{more}")
    narrow = shown.is_terminal and shown.width < WIDE
    shown.print(class_table(measured, narrow=narrow))
    if narrow:
        shown.print(f"Each precision has its interval too in a terminal of {WIDE} columns", style="dim")
    target = output or Path("confusion.png")
    picture = confusion_picture(measured, f"{found.name} on {source.name}")
    why_not = write_unless_theirs(target, picture, force=force)
    shown.print(why_not or f"Confusion matrix: {format_path(target.absolute())}")


def class_table(measured: Evaluation, *, narrow: bool = False) -> Table:
    """A line for each class; `narrow` leaves out what would wrap in 80 columns, where figures cannot be compared."""
    from rich.table import Table

    from lehr.intervals import in_words
    from lehr.printing import one_line

    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for name in ("rows", "recall", "precision", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("taken for" if narrow else "most often taken for")
    for number, name in enumerate(measured.classes):
        rows, recall, precision = measured.of_class(number)
        other = measured.most_confused(number)
        predicted = int(measured.confusion[:, number].sum())
        figures = [
            "" if value != value else in_words(value, of) for value, of in ((recall, rows), (precision, predicted))
        ]
        if narrow:
            figures[1] = "" if precision != precision else f"{precision:.1%}"
        f1 = measured.f1_of_class(number)
        confused = one_line(f"{other[0]} ({other[1]:,})") if other else ""
        table.add_row(one_line(name), f"{rows:,}", *figures, "" if f1 != f1 else f"{f1:.1%}", confused)
    return table


def _show_other(shown: Console, measured: OtherEvaluation, chosen: Measured) -> None:
    """What was measured of a run whose rows have no one class: its figures, and a line for each name."""
    from rich.table import Table

    from lehr.printing import one_line
    from lehr.tasks.forms import spoken

    names = [
        line[0] for line in measured.lines if line[0] in chosen.source.classes
    ]  # words have no figures of their own
    of_all = {
        name: value
        for name, value in measured.figures.items()
        if not name.endswith(tuple(f"_{n}" for n in names)) and value == value  # no box of that size, say
    }
    figures = ", ".join(f"{spoken(name)} {value:.4g}" for name, value in of_all.items())
    shown.print(f"{figures[:1].upper()}{figures[1:]} on {measured.rows:,} rows{chosen.said}")
    if count := len(measured.unreadable):
        named = ", ".join(chosen.source.name_of(row) for row, _ in measured.unreadable[:3])
        shown.print(f"{count} unreadable image{'s' * (count > 1)}, not counted: {named}{', …' if count > 3 else ''}")
    table = Table(measured.head[0], box=None, pad_edge=False, header_style="dim")
    for name in measured.head[1:]:
        table.add_column(name, justify="right")
    for line in measured.lines:
        table.add_row(*map(one_line, line))
    shown.print(table)
