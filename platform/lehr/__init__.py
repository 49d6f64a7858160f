"""lehr: the practice of training neural networks, as jobs on Ray.

import lehr

run = lehr.run("jobs/train.yaml", {"optimizer.lr": 0.05})
run.metrics()  # a row per epoch
run.best_model()  # the network with its best weights
run.predict(images)  # class probabilities

lehr.fine_tune("photos/", minutes=2)  # a folder of photographs for each class, and nothing else to say
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from lehr.errors import JobError, LehrError

# Set before torch is loaded, so that its threads sleep instead of spinning while they wait for each other. On a machine
# with other work, spinning threads wait for one that is not scheduled, and training is ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lehr.job import Job, TrainJob
    from lehr.result import Run

__all__ = ["Job", "JobError", "LehrError", "Run", "TrainJob", "fine_tune", "load", "run"]


@overload
def load(job: str | PathLike[str]) -> Any: ...  # which of them depends on what is there
@overload
def load(job: str | PathLike[str], overrides: Mapping[str, Any] | Sequence[str]) -> Job: ...
def load(job: str | PathLike[str], overrides: Mapping[str, Any] | Sequence[str] = ()) -> Job | Run:
    """Reads a job file, or opens a run: `lehr.load("runs/photos").predict("cat.jpg")`.

    Args:
        job: the file, or the path or URI of a run folder.
        overrides: changes to it, as on the command line (`["optimizer.lr=0.05"]`) or as a mapping from dotted paths
            (`{"optimizer.lr": 0.05}`).

    Returns:
        The job, checked and with defaults filled in; or the run.

    Raises:
        JobError: the file or an override is wrong; the sentence says where and what is allowed.
        RunError: the folder is not a run.
    """
    from lehr.job import load as load_job

    if not overrides and (os.path.isdir(job) or "://" in str(job)):
        from lehr.result import Run

        return Run(job)

    return load_job(job, overrides)


def run(
    job: str | PathLike[str] | Mapping[str, Any] | Job,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    debug: bool = False,
    fresh: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """Runs a job to its end, as `lehr run` does, and returns the run.

    A run of the same job that was stopped or interrupted is resumed; one that is finished is returned as it is.

    Args:
        job: a job file, a mapping with the same content, or a `Job`.
        overrides: changes to a file or mapping, such as `{"optimizer.lr": 0.05}`.
        debug: run in this process, without Ray, so that breakpoints work.
        fresh: delete what an earlier run with the same name left, and start over.
        trust: runs that the job names (as a backbone, as members) whose own code may run too: their names, paths or
            URIs. The code that the job itself names may.

    Raises:
        LehrError: the job is wrong (`JobError`), was stopped, or failed; the message is one sentence that says why.
    """
    from lehr.job import Job, from_dict, to_dict
    from lehr.job import load as load_job
    from lehr.kinds import run_job
    from lehr.result import Run, trust_all
    from lehr.trust import give

    if isinstance(job, Job):
        if overrides:
            raise JobError("overrides apply to files and mappings; change a Job object with model_copy")
        loaded = job
    else:
        loaded = from_dict(job, overrides=overrides) if isinstance(job, Mapping) else load_job(job, overrides)
    give(to_dict(loaded))
    trust_all(trust, loaded.storage)
    return Run(run_job(loaded, debug=debug, fresh=fresh))


def fine_tune(
    photos: str | PathLike[str],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    minutes: float | None = None,
    debug: bool = False,
    fresh: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """Trains a network to tell photographs apart, from one that knows others, as `lehr fine-tune` does.

    A run on the same photographs with the same changes that was stopped is resumed; one that is finished is returned as
    it is.

    Args:
        photos: a folder with a folder of photographs for each class.
        overrides: changes to the job, such as `{"train.epochs": 20, "model.weights": "resnet18.pth"}`.
        minutes: how long it may take on this machine; by default as long as the photographs want, up to 10.
        debug: run in this process, without Ray, so that breakpoints work.
        fresh: delete what an earlier run with the same name left, and start over.
        trust: runs that a change names whose own code may run too: their names, paths or URIs.

    Raises:
        LehrError: the folder holds no classes or a change is wrong (`JobError`), or the run was stopped or failed.
    """
    from lehr.fine_tuning import run_or_job
    from lehr.job import changes_of
    from lehr.kinds import run_job
    from lehr.paths import default_storage
    from lehr.photos import told_as_typed
    from lehr.result import Run, trust_all

    changes = changes_of(overrides)
    trust_all(trust, str(changes.get("storage") or default_storage()))
    known, job = run_or_job(os.fspath(photos), changes, minutes, fresh=fresh, start_over="say fresh=True")
    if known and known.status() == "finished":
        return Run(known)
    with told_as_typed(changes):
        return Run(run_job(job, debug=debug, fresh=fresh))


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `lehr --help` stays fast.
    if name == "Run":
        from lehr.result import Run

        return Run
    if name in ("Job", "TrainJob"):
        import lehr.job

        return getattr(lehr.job, name)
    raise AttributeError(f"module 'lehr' has no attribute {name!r}")
