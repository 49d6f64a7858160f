"""`lehr evaluate`: measure a run on a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, Trust, storage_or_default
from lehr.cli.predict import DataSet, Split


def evaluate(
    run: RunName,
    data: DataSet,
    split: Split = "train",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The PNG file to write the confusion matrix to.")
    ] = Path("confusion.png"),
    storage: Storage = None,
    trust: Trust = None,
) -> None:
    """Measure a run on labelled data: accuracy, recall and precision of each class, and the confusion matrix.

    Example: lehr evaluate train photos/
    Example: lehr evaluate cifar10 data/cifar10 --split test
    Example: lehr evaluate theirs/run photos/ --trust theirs/run
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from lehr.cli.data import job_of
    from lehr.data.sources import open_split
    from lehr.formatting import format_path
    from lehr.machine import cores
    from lehr.paths import add_to_path
    from lehr.predict import load_predictor
    from lehr.predict.evaluate import confusion_picture
    from lehr.predict.evaluate import evaluate as measure
    from lehr.result import find, trust_all

    add_to_path(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = load_predictor(found.record.folder, all_members=True).to(device)
    job = job_of(data, [])
    source = open_split(job.data, split, job.error)
    torch.set_num_threads(cores())
    measured = measure(predictor, source)
    console = Console(highlight=False)
    console.print(
        f"Accuracy {measured.accuracy:.2%} on {measured.rows:,} rows, log loss {measured.loss:.4f}, "
        f"calibration error {measured.calibration:.2%}"
    )
    if measured.members:
        console.print("Members: " + ", ".join(f"{name} {value:.2%}" for name, value in measured.members.items()))
    if measured.unreadable:
        names = ", ".join(source.name_of(row) for row, _ in measured.unreadable[:3])
        more = ", …" if len(measured.unreadable) > 3 else ""
        count = len(measured.unreadable)
        console.print(f"{count} unreadable image{'s' * (count > 1)}, not counted: {names}{more}", markup=False)
    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for name in ("rows", "recall", "precision"):
        table.add_column(name, justify="right")
    table.add_column("most often confused with")
    for number, name in enumerate(measured.classes):
        rows, recall, precision = measured.of_class(number)
        other = measured.most_confused(number)
        figures = ("" if value != value else f"{value:.2%}" for value in (recall, precision))
        table.add_row(name, f"{rows:,}", *figures, f"{other[0]} ({other[1]:,})" if other else "")
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(confusion_picture(measured, f"{found.name} on {source.name}"))
    console.print(f"Confusion matrix: {format_path(output.absolute())}", markup=False)
