"""Which rows a run is measured on: all of a data set, or those that the run itself trained on or held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lehr.data.load import OpenedSources, label_kind
from lehr.data.sources import Source, open_split, returns_dataset
from lehr.errors import RunError
from lehr.job import Job, Training, TrainJob, from_dict, to_dict
from lehr.job.training import seeded


@dataclass(frozen=True)
class Measured:
    """Rows to measure a run on.

    Attributes:
        rows: int64, their numbers in the source; None for all.
        said: what they are, for after `on 360 rows`; empty where that is plain.
    """

    source: Source
    rows: np.ndarray | None = None
    said: str = ""


def rows_of(split: str | None, job: TrainJob, trained: TrainJob | None) -> Measured:
    """The rows of a split. None: all of the source's own training rows, which are all rows of most sources.

    A share of the rows that a job holds out (`data.validation: 0.2`) is a split too, drawn again by the job's seed.

    Args:
        job: names the data.
        trained: the training of the run. Where it has the same data, its own rows are meant.

    Raises:
        JobError: the data are missing, or have no such split.
    """
    if trained is not None:  # the rows are measured by what the run has learned
        job = job.model_copy(update={"task": trained.task})
    kind = label_kind(job)
    same = trained is not None and _place(trained) == _place(job)
    own = trained if trained is not None and same else job
    if returns_dataset(own.data) or not (same or (job.source and split)):
        return Measured(open_split(job.data, split or "train", job.error, kind))
    bare = own.data.model_copy(update={"augment": []})  # which rows there are does not depend on it
    opened = OpenedSources(own.model_copy(update={"data": bare}), to_train=False)
    if split in opened.extra:
        return Measured(opened.extra[split])
    training, held_out = opened.split_ids()
    drawn = f" (data.per_class={own.data.per_class} of each class)" if own.data.per_class else ""
    if split is None:
        said = f", {len(training):,} of which the run trained on{drawn}; --split validation measures the others"
        return Measured(opened.main, None, said if held_out is not None else "")
    if split == "train" or (split == "validation" and held_out is not None):
        ids, whose = training if split == "train" or held_out is None else held_out, "run" if same else "job"
        said = f", the {whose}'s own {'training' if split == 'train' else 'validation'} rows"
        return Measured(opened.main, ids.numpy(), said + (drawn if split == "train" else ""))
    return Measured(open_split(own.data, split, own.error, kind))  # which says what there is


def refuse_seen_by_folds(name: str, split: str | None, job: TrainJob, trained: TrainJob) -> None:
    """Raises RunError for the rows that the folds of a run were dealt: all but one of its networks trained on each."""
    if split == "test" or _place(trained) != _place(job):
        return
    what = "all but one of its networks were trained on each of these rows, so what they reach on them says nothing"
    raise RunError(
        f"{name}: {what}; what each says of rows that it had not seen: lehr show {name}; or one network: "
        f"lehr evaluate {name}/folds/01 … --split validation"
    )


def training_of(job: Job) -> TrainJob | None:
    """The training that a run is, or that it is made of; None for a prediction."""
    if isinstance(job, TrainJob):
        return job
    base = getattr(job, "base", None)
    if not isinstance(base, Training):
        return None
    found = from_dict({**to_dict(seeded(base, job.seed)), "kind": "train"})
    return found if isinstance(found, TrainJob) else None


def _place(job: TrainJob) -> tuple[str, str | None]:
    """What the data are: a path is the same data whether their form is named or found by looking."""
    data = job.data
    return ("auto" if data.path and ":" not in data.source else data.source), data.path
