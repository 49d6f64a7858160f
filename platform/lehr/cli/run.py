"""`lehr run`: run a job on this machine."""

from __future__ import annotations

import shlex
import time

from lehr.cli.options import Debug, Fresh, JobFile, Overrides, Trust, loading


def run(
    job: JobFile,
    overrides: Overrides = None,
    debug: Debug = False,
    fresh: Fresh = False,
    trust: Trust = None,
) -> None:
    """Run a job. A run that was stopped or killed resumes from its last checkpoint.

    Example: lehr run jobs/train.yaml
    Example: lehr run jobs/train.yaml optimizer.lr=0.1 schedule=linear --debug
    Example: lehr run jobs/transfer.yaml --trust runs/backbone
    """
    started = time.time()
    from lehr.job import load

    with loading("PyTorch"):
        loaded = load(job, overrides or ())
        from lehr.kinds import kind_named, run_job
        from lehr.result import trust_all

        kind_named(loaded.kind)  # which imports what it needs

    trust_all(trust or (), loaded.storage)

    command = shlex.join(["lehr", "run", job, *(overrides or ()), *(["--debug"] if debug else [])])
    run_job(loaded, debug=debug, fresh=fresh, started=started, command=command)
