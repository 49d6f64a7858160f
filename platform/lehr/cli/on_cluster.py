"""`lehr on-cluster`: what a cluster starts to run a job. It is the entrypoint of a RayJob."""

from __future__ import annotations

import time
from typing import Annotated

import typer

WAIT_SECONDS = 150.0  # more than a lease outlives its holder (`lehr.runs.lease.STALE_SECONDS`)
LOOK_SECONDS = 5.0


def on_cluster(
    job: Annotated[str, typer.Argument(help="The job file.", show_default=False)],
) -> None:
    """Run a job that was sent to a cluster.

    As `lehr run`, with two differences. A retry may start before the lease of the driver that died has run out: it
    waits. And a run that a person stopped has ended well: with exit code 0 it is not tried again.
    """
    started = time.time()
    from lehr.driver import Interrupted
    from lehr.errors import RunHeld
    from lehr.job import load
    from lehr.kinds import run_job
    from lehr.runs import Folder, RunFolder

    loaded = load(job)
    while True:
        try:
            run_job(loaded, started=started, command="lehr submit, with the same job")
            return
        except RunHeld as held:
            if time.time() - started > WAIT_SECONDS:
                raise
            print(f"{held}; waiting until it is known to be gone", flush=True)
            time.sleep(LOOK_SECONDS)
        except Interrupted as stopped:
            reason = RunFolder.open(Folder.at(loaded.storage).child(loaded.run_name)).stop_requested() or "SIGTERM"
            if reason.startswith("SIG"):
                raise  # the cluster took the machine away: another attempt goes on
            print(stopped, flush=True)
            return
