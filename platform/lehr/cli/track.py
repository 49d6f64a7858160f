"""`lehr track`: write a run's record to a tracker."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default
from lehr.errors import JobError


def track(
    run: RunName,
    to: Annotated[list[str], typer.Option("--to", help="tensorboard, mlflow, wandb or trackio. May be repeated.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    storage: Storage = None,
) -> None:
    """Write a run's parameters, metrics and report to a tracker.

    What a tracker has already is not written again. Where it is, its own variables say, such as MLFLOW_TRACKING_URI.

    Example: lehr track train --to mlflow
    Example: lehr track train --to tensorboard --to wandb
    """
    from lehr import tracking
    from lehr.formatting import count_of, format_folder
    from lehr.result import find

    for name in to:
        if name not in tracking.TRACKERS:
            raise JobError(f'"{name}" is no tracker; allowed: {", ".join(tracking.TRACKERS)}', field="--to")
        tracking.TRACKERS[name].check("--to")
    folder = find(run, storage_or_default(storage)).record
    for name in dict.fromkeys(to):
        rows = tracking.track(folder, name, follow, tracking.job_has_ended)
        where = f", in {format_folder(folder.folder)}/tensorboard" if name == "tensorboard" else ""
        print(f"{name} has {folder.name}{where}: {count_of(rows, 'row')} {'is' if rows == 1 else 'are'} new.")
