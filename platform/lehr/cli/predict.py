"""`lehr predict`: every row of a data set through a run."""

from __future__ import annotations

import shlex
import sys
import time
from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, with labels or without, or of Parquet files; a source, such as torchvision:CIFAR10; "
        "or a job file.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="Which split, where the data have several: train, validation or test.")]


def predict(
    run: RunName,
    data: DataSet,
    out: Annotated[str, typer.Argument(help="Folder or URI for the Parquet files.", show_default=False)],
    split: Split = "train",
    members: Annotated[bool, typer.Option("--members", help="The probabilities of each member as well.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 256,
    debug: Annotated[bool, typer.Option("--debug", help="In one process, without Ray: breakpoints work.")] = False,
    storage: Storage = None,
) -> None:
    """Predict every row of a data set, with all members of an ensemble in one pass, into Parquet files."""
    started = time.time()
    from lehr.cli.data import job_of
    from lehr.driver import place
    from lehr.job import from_dict, to_dict
    from lehr.kinds import run_job

    section = to_dict(job_of(data, []).data) | {"augment": [], "limit": None, "per_class": None, "classes": None}
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
    _, existing = place(job, fresh=False)
    done = existing is not None and existing.status() == "finished"
    run_job(job, debug=debug, fresh=done, started=started, command=shlex.join(["lehr", *sys.argv[1:]]))
