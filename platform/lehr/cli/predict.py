"""`lehr predict`: predict every row of a data set with a run."""

from __future__ import annotations

import shlex
import sys
import time
from typing import Annotated

import typer

from lehr.cli.options import Debug, RunName, Storage, Trust, storage_or_default

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, with or without labels, or of Parquet files; a source, such as torchvision:CIFAR10; "
        "or a job file, whose data are used.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="The split, if the data have several: train, validation or test.")]


def predict(
    run: RunName,
    data: DataSet,
    out: Annotated[str, typer.Argument(help="Folder or URI for the Parquet files.", show_default=False)],
    split: Split = "train",
    members: Annotated[
        bool, typer.Option("--members", help="Also write the probabilities of each member of an ensemble.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 256,
    debug: Debug = False,
    storage: Storage = None,
    trust: Trust = None,
) -> None:
    """Predict every row of a data set and write Parquet files.

    All members of an ensemble predict in a single pass over the data. Parts that an earlier attempt wrote are kept.

    Example: lehr predict train photos/ predictions/
    Example: lehr predict snapshot-ensemble photos/ predictions/ --members
    Example: lehr predict theirs/run photos/ predictions/ --trust theirs/run
    """
    started = time.time()
    from lehr.cli.data import job_of
    from lehr.driver import choose_run_folder
    from lehr.job import from_dict, to_dict
    from lehr.kinds import run_job
    from lehr.result import trust_all

    trust_all(trust or (), storage_or_default(storage))
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
    _, existing = choose_run_folder(job, fresh=False)
    finished = existing is not None and existing.status() == "finished"  # it is then repeated
    run_job(job, debug=debug, fresh=finished, started=started, command=shlex.join(["lehr", *sys.argv[1:]]))
