"""`lehr on-cluster`: the entrypoint of a RayJob, which runs the job on its cluster."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lehr.cli.options import JobFile, Trust


def on_cluster(
    job: JobFile,
    trust: Trust = None,
    fresh_once: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            help="Delete the earlier run of this name and start over, once: not again with the same word.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Run a job on the cluster that this command was started on.

    Like lehr run, with two differences. A retry may start before the lease of the driver that died has expired; it
    waits for that. And a run that a person stopped ends with exit code 0, so that it is not retried.

    Example: lehr on-cluster /etc/lehr/job.yaml
    """
    started = time.time()
    from lehr.driver import Interrupted
    from lehr.job import load
    from lehr.kinds import run_job
    from lehr.result import trust_all
    from lehr.runs import Folder, RunFolder
    from lehr.submission.held_runs import when_free

    loaded = load(job)
    trust_all(trust or (), loaded.storage)
    command = f"lehr resume {loaded.run_name} --kubernetes PROFILE"
    try:
        when_free(lambda: run_job(loaded, fresh=fresh_once, started=started, command=command))
    except Interrupted as stopped:
        reason = RunFolder.open(Folder.at(loaded.storage).child(loaded.run_name)).stop_requested() or "SIGTERM"
        if reason.startswith("SIG"):
            raise  # the cluster took the machine away: another attempt resumes the run
        print(stopped, flush=True)
