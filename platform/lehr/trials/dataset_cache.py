"""The images of all trials: each distinct set is opened and decoded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from lehr.job import TrainJob, to_dict
from lehr.models.weights import recipe_for
from lehr.runs import DataSurvey, RunFolder, Survey

Held = TypeVar("Held")

AFTER_DECODING = ("augment", "sampling", "limit", "per_class", "split_seed", "stratify", "fold")
"""Fields of a data section that change what is done with decoded images, not the images."""


class DatasetCache(Generic[Held]):
    """Keeps what `prepare` makes of a job's data, and makes it once for all jobs whose images are the same."""

    def __init__(self, prepare: Callable[[TrainJob], Mapping[str, Held]]) -> None:
        self._prepare = prepare
        self._held: dict[str, Mapping[str, Held]] = {}

    def of(self, job: TrainJob) -> Mapping[str, Held]:
        """The job's data by split. Raises what `prepare` raises, such as JobError for data the job cannot have."""
        about = same_images(job)
        if about not in self._held:
            self._held[about] = self._prepare(job)
        return self._held[about]

    def add(self, job: TrainJob, held: Mapping[str, Held]) -> None:
        """Keeps what was made of a job's data already."""
        self._held[same_images(job)] = held


class Surveys:
    """What trials found of their rows (`survey.json`): the next trial on the same rows does not look again.

    Trials that begin at the same time, before the first has ended, look for themselves.
    """

    def __init__(self) -> None:
        self._known: dict[str, DataSurvey] = {}

    def keep(self, child: RunFolder, job: TrainJob) -> None:
        """Notes what a trial that has ended found."""
        found = Survey.read(child.folder).data
        if found.train.rows:
            self._known.setdefault(same_rows(job), found)

    def lend(self, child: RunFolder, job: TrainJob) -> None:
        """Gives a trial what another one found of the same rows."""
        found = self._known.get(same_rows(job))
        if found and not Survey.read(child.folder).data.train.rows:
            Survey(found).write(child.folder)


class SharedData:
    """What several calls of `run_trials` share: images are read, told of, and surveyed once for all of them."""

    def __init__(self, job: TrainJob | None = None, held: Mapping[str, Any] | None = None) -> None:
        """With a job whose data were opened before, and they: in this process what `open_data` returns, on Ray what
        `share` makes of it."""
        self._cache: DatasetCache[Any] | None = None
        self.surveys = Surveys()
        self._before = (job, held) if job and held else None

    def cache(self, prepare: Callable[[TrainJob], Mapping[str, Held]]) -> DatasetCache[Held]:
        """The cache of the first call, which `prepare` fills."""
        if self._cache is None:
            self._cache = DatasetCache(prepare)
            if self._before:
                self._cache.add(*self._before)
        return self._cache


def same_rows(job: TrainJob) -> str:
    """A key that two jobs share exactly when they train and validate on the same images."""
    data = job.data
    seed = job.seed if data.split_seed is None else data.split_seed
    drawn = [data.stratify, data.fold]
    return json.dumps([same_images(job), data.limit, data.per_class, str(data.validation), seed, *drawn])


def same_images(job: TrainJob) -> str:
    """A key that two jobs share exactly when their decoded images are the same."""
    data: dict[str, Any] = {key: value for key, value in to_dict(job)["data"].items() if key not in AFTER_DECODING}
    if isinstance(data["validation"], float):
        data["validation"] = "share"
    recipe = recipe_for(job)
    data["prepared"] = [recipe.size, recipe.resize, recipe.interpolation, recipe.letterbox]
    return json.dumps(data, sort_keys=True)
