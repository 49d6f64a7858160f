"""The best trial of a search as a job file of its own."""

from __future__ import annotations

from typing import Any

import yaml

from lehr.errors import RunError
from lehr.job import TrainJob, from_dict
from lehr.runs import RunFolder


def winner(run: RunFolder) -> str:
    """A job file that trains the best trial of a search again, with its seed and everything that is not a default.

    Raises:
        RunError: not a run with trials, or none of them has finished an epoch.
    """
    best = run.progress().get("best") or {}
    if run.job.get("kind") != "search":
        raise RunError(f"{run.name} is a run of kind {run.job.get('kind', 'train')}; allowed: a search")
    if "trial" not in best:
        raise RunError(f"{run.name} has no trial that finished an epoch yet")
    job = from_dict(RunFolder.open(run.folder.child(*best["trial"].split("/"))).job)
    assert isinstance(job, TrainJob)
    about = [
        f"# The best trial of the search {run.name}: {best['trial']}, {best['metric']} {best['value']:.4f}",
        f"# after {job.train.epochs} epochs at most. Longer: add train.epochs={3 * job.train.epochs} to the command.",
    ]
    return "\n".join(about) + "\n" + yaml.safe_dump(said(job), sort_keys=False, allow_unicode=True)


def said(job: TrainJob) -> dict[str, Any]:
    """The job as short as a person would say it: defaults left out, wherever the rest gives the same job."""
    hidden = {"storage", "name", "notes"}
    short = {"kind": "train", **job.model_dump(mode="json", exclude_defaults=True, exclude=hidden)}
    for section in ("optimizer", "schedule", "model"):  # their names decide what their other options mean
        if section in short and "name" not in short[section]:
            short[section] = {"name": getattr(job, section).name, **short[section]}
    whole = job.model_dump(mode="json", exclude=hidden)
    again = from_dict(short).model_dump(mode="json", exclude=hidden)
    return short if again == whole else whole
