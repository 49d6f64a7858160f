"""From a job's `data` section to its opened sources, its augmentations, and the rows of each split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lehr.data.augment import AUGMENTATIONS, MIXES, Augment, wrong_value
from lehr.data.dataset import DataSubset, Images, Splits, stratified_split
from lehr.data.randomness import key, permutation
from lehr.data.reading import Read, check_labels, probe, read
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.data.streaming import Decoder, Stream
from lehr.errors import LehrError
from lehr.job import DataSection, TrainJob, check_call, not_a_choice
from lehr.job.sections import NO_PATHS

VALIDATION_SHARE = 0.2  # held out if the job does not say and the source has no validation split


def image_size(section: DataSection) -> tuple[int, int] | None:
    """(height, width) to resize to, or None."""
    size = section.image_size
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class OpenedSources:
    """A job's sources, opened and checked but not yet decoded."""

    def __init__(self, job: TrainJob) -> None:
        """Raises JobError for a source or an augmentation that the job cannot use."""
        self.job = job
        self.main = self._chosen(open_source(job.data, job.error))
        if not self.main.classes:
            raise job.error("data.source", f"{job.data.source} has no labels to train with; allowed: in a prediction")
        self.size = image_size(job.data)
        self.extra: dict[str, Source] = {}
        for split, wanted in (("validation", job.data.validation), ("test", job.data.test)):
            if wanted == "auto" and split in self.main.other_splits:
                self.extra[split] = self._with_same_classes(split, self.main.other_splits[split])
            elif isinstance(wanted, str) and wanted not in NO_PATHS:
                self.extra[split] = self._with_same_classes(split, self._beside(split, wanted))
        augmentations(job)

    def _beside(self, split: str, path: str) -> Source:
        section = self.job.data.model_copy(update={"path": path})
        source = open_source(section, lambda _, what: self.job.error(f"data.{split}", what))
        return source.select_classes(tuple(self.job.data.classes)) if self.job.data.classes else source

    def _chosen(self, source: Source) -> Source:
        """The source, restricted to the classes that the job asks for."""
        wanted = self.job.data.classes
        if wanted is None:
            return source
        for number, name in enumerate(wanted):
            if name not in source.classes:
                raise self.job.error(f"data.classes.{number}", not_a_choice(name, "class of the data", source.classes))
            if name in wanted[:number]:
                raise self.job.error(f"data.classes.{number}", f'"{name}" is listed twice')
        return source.select_classes(tuple(wanted))

    def _with_same_classes(self, split: str, source: Source) -> Source:
        if unknown := [name for name in source.classes if name not in self.main.classes]:
            names = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
            raise self.job.error(f"data.{split}", f"its classes {names} are not among those of the training data")
        return source.relabel(self.main.classes)

    @property
    def sources(self) -> dict[str, Source]:
        """The source of the training rows, `train`, and those of `validation` and `test` if they have their own."""
        return {"train": self.main, **self.extra}

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the training images, taken from the first few."""
        return probe(self.main, self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of all images when decoded."""
        return math.prod(self.shape) * sum(source.rows for source in self.sources.values())

    def decode(self, read: Read = read) -> dict[str, Images]:
        """Every source, decoded, by its name."""
        skip = self.job.data.skip_unreadable
        images = {name: read(source, self.size, skip) for name, source in self.sources.items()}
        for name, decoded in images.items():
            self._check_shape(name, decoded.pixels.shape[1:], images["train"].pixels.shape[1:])
        return images

    def stream(self, decoder: Decoder) -> dict[str, Stream]:
        """Every source, by its name, as rows that are decoded on demand."""
        streams = {}
        for name, source in self.sources.items():
            self._check_shape(name, probe(source, self.size), self.shape)
            labels = source.labels()
            check_labels(labels, source)
            streams[name] = Stream(source, labels, self.shape, decoder, self.job.data.skip_unreadable)
        return streams

    def _check_shape(self, split: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
        if tuple(shape) != tuple(wanted):
            theirs, ours = (f"{s[1]} × {s[0]} pixels with {s[2]} channels" for s in (shape, wanted))
            raise LehrError(f"data.{split}: its images are {theirs}, those for training {ours}; see data.image_size")


def augmentations(job: TrainJob, compiled: bool = False) -> Augment:
    """The job's augmentations. Raises JobError for one that is unknown or has a wrong option."""
    steps = []
    for number, entry in enumerate(job.data.augment):
        field = f"data.augment.{number}"
        known = {**AUGMENTATIONS, **MIXES}
        if entry.name not in known:
            raise job.error(field, f'"{entry.name}" is not an augmentation; allowed: {", ".join(known)}')
        function = known[entry.name]
        check_call(function, entry.options, skip=("images", "others", "draw"), field=field, error=job.error)
        if problem := wrong_value(entry.options):
            raise job.error(f"{field}.{problem[0]}", problem[1])
        steps.append((entry.name, entry.options))
    return Augment(steps, job.seed, compiled)


def splits(job: TrainJob, data: Mapping[str, Images | Stream]) -> Splits:
    """The rows for training, validation and test: a pure function of the labels and the seed of the split."""
    train = data["train"]
    seed = job.seed if job.data.split_seed is None else job.data.split_seed
    if "validation" in data:
        train_ids, validation = torch.arange(len(train)), _all_rows(data["validation"])
    else:
        share = job.data.validation if isinstance(job.data.validation, float) else VALIDATION_SHARE
        train_ids, held_out = stratified_split(train.labels, share, seed)
        validation = train.rows(held_out)
    if job.data.limit is not None and job.data.limit < len(train_ids):
        train_ids = train_ids[permutation(key(seed, "limit"), len(train_ids))[: job.data.limit]].sort().values
    if job.data.per_class is not None:
        train_ids = _at_most_per_class(train, train_ids, job.data.per_class, seed)
    return Splits(train.rows(train_ids), validation, _all_rows(data["test"]) if "test" in data else None)


def _at_most_per_class(data: Images | Stream, ids: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of these rows per class; a smaller count gives a subset of a larger one."""
    if isinstance(data, Images) and data.unreadable:
        ids = ids[~torch.isin(ids, torch.tensor(data.unreadable))]
    order = ids[permutation(key(seed, "per class"), len(ids))]
    labels = torch.from_numpy(np.array(data.labels))[order]
    chosen = [order[labels == label][:count] for label in labels.unique()]
    return torch.cat(chosen).sort().values if chosen else ids


def _all_rows(data: Images | Stream) -> DataSubset:
    return data.rows(torch.arange(len(data)))
