"""lehr: the practice of training neural networks, as jobs on Ray.

import lehr
run = lehr.run("jobs/train.yaml", {"optimizer.lr": 0.05})
run.metrics(); run.best_model(); run.predict(images)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from lehr.errors import JobError, LehrError

# Before torch is loaded: its threads sleep while they wait for each other instead of spinning. On a machine that also
# does something else, spinning threads wait for one that was sent away, and training is ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from lehr.job import Job, TrainJob
    from lehr.result import Run

__all__ = ["Job", "JobError", "LehrError", "Run", "TrainJob", "load", "run"]


def load(job: str | PathLike[str], overrides: Mapping[str, Any] | Sequence[str] = ()) -> Job:
    """The job that a file describes, with overrides as on the command line or as a mapping from dotted paths.

    Raises:
        JobError: the file or an override is wrong; the sentence says where and what is allowed.
    """
    from lehr.job import load as load_job

    return load_job(job, overrides)


def run(
    job: str | PathLike[str] | Mapping[str, Any] | Job,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    debug: bool = False,
    fresh: bool = False,
) -> Run:
    """Runs a job (a file, a mapping or a `Job`) to its end, as `lehr run` does, and returns the run.

    Args:
        overrides: changes to a file or mapping: `{"optimizer.lr": 0.05}`.
        debug: in this process, without Ray.
        fresh: delete what the run of this name left and start over.

    Raises:
        LehrError: the job is wrong, was stopped, or failed; one sentence says why.
    """
    from lehr.job import Job, from_dict
    from lehr.kinds import run_job
    from lehr.result import Run

    if isinstance(job, Job):
        if overrides:
            raise JobError("overrides are for files and mappings; change the Job object itself with model_copy")
        loaded = job
    else:
        loaded = from_dict(job, overrides=overrides) if isinstance(job, Mapping) else load(job, overrides)
    return Run(run_job(loaded, debug=debug, fresh=fresh))


def __getattr__(name: str) -> Any:
    # Imported when first used: `lehr --help` needs none of it.
    if name == "Run":
        from lehr.result import Run

        return Run
    if name in ("Job", "TrainJob"):
        import lehr.job

        return getattr(lehr.job, name)
    raise AttributeError(f"module 'lehr' has no attribute {name!r}")
