"""`lehr evaluate`: measure a run on a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import AsJson, Force, RunName, Storage, Trust, print_json, storage_or_default
from lehr.cli.predict import DataSet


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
        Path, typer.Option("--output", "-o", help="The PNG file to write the confusion matrix to.")
    ] = Path("confusion.png"),
    storage: Storage = None,
    trust: Trust = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure a run on labelled data: accuracy, recall and precision of each class, and the confusion matrix.

    Example: lehr evaluate train photos/
    Example: lehr evaluate cifar10 data/cifar10 --split test
    Example: lehr evaluate train jobs/train.yaml --split validation
    Example: lehr evaluate theirs/run photos/ --trust theirs/run
    """
    import torch
    from rich.table import Table

    from lehr.cli.data import job_of
    from lehr.formatting import format_folder, format_path
    from lehr.intervals import in_words
    from lehr.job import from_dict, to_dict
    from lehr.machine import cores
    from lehr.output import refuse_existing, write_whole
    from lehr.own_modules import look_in
    from lehr.predict import load_predictor
    from lehr.predict.evaluate import confusion_picture
    from lehr.predict.evaluate import evaluate as measure
    from lehr.predict.own_rows import rows_of, training_of
    from lehr.printing import one_line
    from lehr.result import find, trust_all
    from lehr.screen import console
    from lehr.trust import calls_of, check

    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = job_of(data, overrides or [])
    trained = training_of(from_dict(found.training_run().job))
    chosen = rows_of(split, job, None if overrides else trained)  # data that are changed are not the run's own
    if trained and not job.metrics:
        named = [call for call in calls_of(to_dict(trained)) if call.field == "metric"]
        check(named, format_folder(found.record.folder))
    source = chosen.source
    predictor = load_predictor(found.record.folder, all_members=True).to(device)
    if not as_json:
        refuse_existing(output, force=force)  # after what is wrong with run and data, and before any work
    torch.set_num_threads(cores())
    measured = measure(predictor, source, rows=chosen.rows, job=job if job.metrics else trained)
    if as_json:
        print_json({"run": found.name, "data": source.name, "split": split, **measured.to_json()})
        return
    shown = console()
    for note in source.notes:
        shown.print(note)
    shown.print(
        f"Accuracy {in_words(measured.accuracy, measured.rows)} on {measured.rows:,} rows{chosen.said}; "
        f"log loss {measured.loss:.4f}, "
        f"calibration error {measured.calibration:.2%}"
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
    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for name in ("rows", "recall", "precision"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("most often confused with")
    for number, name in enumerate(measured.classes):
        rows, recall, precision = measured.of_class(number)
        other = measured.most_confused(number)
        predicted = int(measured.confusion[:, number].sum())
        figures = (
            "" if value != value else in_words(value, of) for value, of in ((recall, rows), (precision, predicted))
        )
        confused = one_line(f"{other[0]} ({other[1]:,})") if other else ""
        table.add_row(one_line(name), f"{rows:,}", *figures, confused)
    shown.print(table)
    write_whole(output, confusion_picture(measured, f"{found.name} on {source.name}"))
    shown.print(f"Confusion matrix: {format_path(output.absolute())}")
