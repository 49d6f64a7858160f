"""From a job's `data` section to the rows that training sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from lehr.data.augment import AUGMENTATIONS, Augment
from lehr.data.dataset import Images, Rows, Splits, stratified_split
from lehr.data.decode import decode
from lehr.data.sources import Source, open_source
from lehr.errors import LehrError
from lehr.job import DataSection, TrainJob, check_call


def image_size(section: DataSection) -> tuple[int, int] | None:
    """(height, width) to resize to, or None."""
    size = section.image_size
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def join(pieces: Iterable[tuple[np.ndarray, np.ndarray]], source: Source) -> Images:
    """One contiguous array per column from the decoded pieces of a source, in order.

    Raises:
        LehrError: pieces of different image sizes, no rows, or a label outside the classes.
    """
    decoded = [piece for piece in pieces if len(piece[1])]
    if not decoded:
        raise LehrError(f"data: {source.name} has no rows")
    if len({pixels.shape[1:3] for pixels, _ in decoded}) > 1:
        raise LehrError("data: the images differ in size; give data.image_size to resize them to")
    channels = max(pixels.shape[3] for pixels, _ in decoded)
    pixels = np.concatenate([np.broadcast_to(p, (*p.shape[:3], channels)) for p, _ in decoded])
    labels = np.concatenate([labels for _, labels in decoded])
    wrong = np.flatnonzero((labels < 0) | (labels >= len(source.classes)))
    if len(wrong):
        raise LehrError(
            f"data: row {wrong[0]} of {source.name} has label {labels[wrong[0]]}; "
            f"allowed: 0 to {len(source.classes) - 1}, one for each of its {len(source.classes)} classes"
        )
    return Images(pixels, labels, source.classes)


def read(source: Source, size: tuple[int, int] | None) -> Images:
    """Decodes a whole source in this process."""
    return join((decode(part.read(), size) for part in source.parts), source)


class Opened:
    """A job's sources, opened and checked but not yet decoded."""

    def __init__(self, job: TrainJob) -> None:
        """Raises JobError for a source or an augmentation that the job cannot have."""
        self.job = job
        self.main = open_source(job.data, job.error)
        self.size = image_size(job.data)
        self.extra: dict[str, Source] = {}
        if isinstance(job.data.validation, str):
            self.extra["validation"] = self._beside("validation", job.data.validation)
        if job.data.test is not None:
            self.extra["test"] = self._beside("test", job.data.test)
        augmentations(job)

    def _beside(self, field: str, path: str) -> Source:
        section = self.job.data.model_copy(update={"path": path})
        source = open_source(section, lambda _, what: self.job.error(f"data.{field}", what))
        if source.classes != self.main.classes:
            raise self.job.error(f"data.{field}", f"its classes {source.classes} are not those of the training data")
        return source

    @property
    def sources(self) -> dict[str, Source]:
        return {"train": self.main, **self.extra}

    def decode(self, read: Callable[[Source, tuple[int, int] | None], Images] = read) -> dict[str, Images]:
        """Every source decoded, under its name: `train` and, from files of their own, `validation` and `test`."""
        return {name: read(source, self.size) for name, source in self.sources.items()}


def augmentations(job: TrainJob) -> Augment:
    """The job's augmentations. Raises JobError for one that is unknown or has a wrong option."""
    steps = []
    for number, entry in enumerate(job.data.augment):
        field = f"data.augment.{number}"
        if entry.name not in AUGMENTATIONS:
            raise job.error(field, f'"{entry.name}" is not an augmentation; allowed: {", ".join(AUGMENTATIONS)}')
        check_call(AUGMENTATIONS[entry.name], entry.options, skip=("images", "draw"), field=field, error=job.error)
        steps.append((entry.name, entry.options))
    return Augment(steps, job.seed)


def splits(job: TrainJob, images: dict[str, Images]) -> Splits:
    """Which rows are for training, validation and test: a pure function of the labels and the job's seed."""
    train = images["train"]
    everything = torch.arange(len(train))
    if isinstance(job.data.validation, str):
        train_ids, validation = everything, Rows(images["validation"], torch.arange(len(images["validation"])))
    else:
        train_ids, held_out = stratified_split(train.labels, job.data.validation, job.seed)
        validation = Rows(train, held_out)
    if job.data.limit is not None and job.data.limit < len(train_ids):
        from lehr.data.randomness import key, permutation

        train_ids = train_ids[permutation(key(job.seed, "limit"), len(train_ids))[: job.data.limit]].sort().values
    test = Rows(images["test"], torch.arange(len(images["test"]))) if "test" in images else None
    return Splits(Rows(train, train_ids), validation, test)
