"""The best trial of a search as a job file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from lehr.errors import RunError
from lehr.formatting import format_folder
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import RunFolder
from lehr.search.analysis import read_search
from lehr.search.formats import close_to_best, format_metric, metric_name
from lehr.search.record import folder_of
from lehr.trust import calls_of, check


def winning_job(run: RunFolder) -> str:
    """A job file that trains the best trial of a search again, with its seed and all values that are not defaults.

    Raises:
        RunError: the run is not a search, or no trial has finished an epoch.
        Untrusted: the trial names code that nobody allowed; a job file would allow it.
    """
    found = read_search(run)
    if not found.ranked:
        raise RunError(f"{run.name} has no trial that has finished an epoch yet")
    best = found.ranked[0]
    folder = folder_of(best.number)
    job = from_dict(RunFolder.open(run.folder.child(folder)).job)
    assert isinstance(job, TrainJob)
    value = format_metric(best.best, found.metric, found.measured_rows)
    ranking = [(f"trial {each.number}", each.best) for each in found.ranked if each.best is not None]
    close = close_to_best(found.metric, ranking, found.measured_rows)
    about = [
        f"# The best trial of the search {run.name}: {folder}, {metric_name(found.metric)} {value}",
        f"# after up to {job.train.epochs} epochs. To train longer, add train.epochs={3 * job.train.epochs}.",
        *([f"# {close}"] if close else []),
    ]
    return job_file(job, run, about)


def job_file(job: TrainJob, run: RunFolder, about: Sequence[str]) -> str:
    """A job as a file, after some lines of comment.

    Raises:
        Untrusted: the job names code that nobody allowed; a job file would allow it.
    """
    check(calls_of(to_dict(job)), format_folder(run.folder))
    return "\n".join(about) + "\n" + yaml.safe_dump(minimal_job(job), sort_keys=False, allow_unicode=True)


def minimal_job(job: TrainJob) -> dict[str, Any]:
    """The job without defaults, as a person would write it; the whole job where that would not be the same."""
    hidden = {"storage", "name", "notes", "notify", "tracking"}
    short = {"kind": "train", **job.model_dump(mode="json", exclude_defaults=True, exclude=hidden)}
    for section in ("optimizer", "schedule", "model"):  # the name decides what the other options mean
        if section in short and "name" not in short[section]:
            short[section] = {"name": getattr(job, section).name, **short[section]}
    whole = job.model_dump(mode="json", exclude=hidden)
    again = from_dict(short).model_dump(mode="json", exclude=hidden)
    return short if again == whole else whole
