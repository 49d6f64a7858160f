"""From a job's `data` section to its opened sources, its augmentations, and the rows of each split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lehr.data.augment import AUGMENTATIONS, MIXES, Augment, Choose, Move, Own, is_own, wrong_value
from lehr.data.dataset import DataSubset, Images, Splits, held_out_by_chance, held_out_by_class
from lehr.data.dealing import deal_groups, deal_rows, strata_of
from lehr.data.labels import Labels, one_class_each
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import key, permutation
from lehr.data.reading import (
    Read,
    any_decoded_smaller,
    first_stored,
    has_colour,
    probe,
    read,
    small_labels,
)
from lehr.data.row_sets import RowSet, first_of_order
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.data.sources.boxes import letterbox
from lehr.data.sources.written import in_storage
from lehr.data.streaming import Decoder, Stream
from lehr.errors import LehrError
from lehr.job import Augment as AugmentEntry
from lehr.job import DataSection, TrainJob, check_call, not_a_choice
from lehr.job.sections import NO_PATHS
from lehr.job.sources import source_form
from lehr.models.recipes import Recipe
from lehr.models.weights import recipe_for
from lehr.tasks import find as tasks
from lehr.tasks.forms import PLACED, LabelKind, form_of

VALIDATION_SHARE = 0.2  # held out if the job does not say and the source has no validation split


def pixel_format(job: TrainJob, recipe: Recipe, channels: int | None) -> PixelFormat:
    """What the images of a job are decoded to."""
    return PixelFormat(
        recipe.size,
        channels,
        job.data.pixel_range,
        recipe.resize,
        recipe.interpolation,
        recipe.letterbox,
        job.data.decode == "scaled",
    )


class OpenedSources:
    """A job's sources, opened and checked but not yet decoded."""

    def __init__(self, job: TrainJob, *, to_train: bool = True) -> None:
        """Raises JobError for a source or an augmentation that the job cannot use.

        Args:
            to_train: also refuse a source of one class, from which nothing can be learned.
        """
        self.job = job
        self.recipe = recipe_for(job)
        if job.data.decode == "scaled" and self.recipe.size is None:
            what = (
                "scaled is for images that are resized, and nothing says to what size; type data.image_size=224 as well"
            )
            raise job.error("data.decode", what)
        self.kind = label_kind(job)
        with in_storage(job.storage):
            self.main = self._chosen(open_source(job.data, job.error, self.kind))
        if self.main.unlabelled if self.kind == "captions" else not self.main.classes:
            raise job.error("data.source", f"{job.data.source} has no labels to train with; allowed: in a prediction")
        self.extra: dict[str, Source] = {}
        for split, wanted in (("validation", job.data.validation), ("test", job.data.test)):
            if wanted == "auto" and split in self.main.other_splits:
                self.extra[split] = self._with_same_classes(split, self.main.other_splits[split])
            elif isinstance(wanted, str) and wanted not in NO_PATHS:
                self.extra[split] = self._with_same_classes(split, self._beside(split, wanted))
        augmentations(job)
        if to_train:
            self._refuse_one_class()
            if (into := self._into()) is not None:  # then boxes and masks are in the pixels of the input
                self.main = letterbox(self.main, into)
                self.extra = {split: letterbox(source, into) for split, source in self.extra.items()}
        if problem := wrong_split(job.data, self.main, self.extra):
            raise job.error(*problem)

    def _into(self) -> tuple[int, int] | None:
        """The size that labels which are places are letterboxed into; masks have that of their images in any case."""
        if self.kind not in PLACED:
            return None
        return probe(self.main, self.wanted)[:2] if self.kind == "mask" and not self.recipe.size else self.recipe.size

    def _beside(self, split: str, path: str) -> Source:
        """The rows at another path. Raises JobError where the source has none there, or they are others than meant."""
        data, field = self.job.data, f"data.{split}"
        form = source_form(data.source)
        if form is None or form.path == "none" or form.downloads:
            words = "auto or a share of its rows, such as 0.2" if split == "validation" else "auto or none"
            raise self.job.error(field, f'the source {data.source} has no other rows at "{path}"; allowed: {words}')
        if path == data.path:
            raise self.job.error(field, f'"{path}" is data.path, the rows to train on; allowed: other rows')
        section = data.model_copy(update={"path": path})
        with in_storage(self.job.storage):
            source = open_source(section, lambda _, what: self.job.error(field, what), self.kind)
        if source.other_splits:
            known = ", ".join(["train", *source.other_splits])
            raise self.job.error(field, f'"{path}" has splits of its own, {known}; allowed: the path of one of them')
        return source.select_classes(tuple(data.classes)) if data.classes else source

    def split_ids(self) -> tuple[Tensor, Tensor | None]:
        """The numbers of the rows to train on, and of those held out; see `split_ids`."""
        return split_ids(self.job, self.main.labels(), "validation" in self.extra, self.main.groups)

    def _refuse_one_class(self) -> None:
        """Raises JobError where there is nothing to tell apart."""
        if len(self.main.classes) == 1 and self.kind == "class":
            hint = f". {self.main.hint}" if self.main.hint else ""
            what = f'"{self.main.name}" has one class, {self.main.classes[0]}; allowed: two or more{hint}'
            raise self.job.error("data.path" if self.job.data.path else "data.source", what)

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
            hint = f". {source.hint}" if source.hint else ""
            raise self.job.error(f"data.{split}", f"its classes {names} are not among those of the training data{hint}")
        return source.relabel(self.main.classes)

    @property
    def sources(self) -> dict[str, Source]:
        """The source of the training rows, `train`, and those of `validation` and `test` if they have their own."""
        return {"train": self.main, **self.extra}

    @cached_property
    def wanted(self) -> PixelFormat:
        """What the images of all sources are decoded to. Where the job does not say their channels, any training image
        in colour decides, so that this may read as far as to the first."""
        channels = self.job.data.channels
        found = (3 if has_colour(self.main) else 1) if channels == "auto" else channels
        return pixel_format(self.job, self.recipe, found)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the training images; the size is that of the first few."""
        return probe(self.main, self.wanted)

    @property
    def likely_shape(self) -> tuple[int, int, int]:
        """The same without a look at more than the first few images: among later ones may be the first in colour."""
        channels = self.job.data.channels
        known = None if channels == "auto" else channels
        return probe(self.main, pixel_format(self.job, self.recipe, known))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data, one sentence each."""
        found = [note for source in self.sources.values() for note in source.notes]
        if self.main.groups is not None and "validation" not in self.extra:
            found += group_notes(self.job.data, self.main, self.split_ids())
        if self.recipe.source or self.recipe.guessed:
            found.append(self.recipe.sentence("model.preprocessing"))
        if self.job.data.split_seed is not None and not self._draws_rows:
            found.append("data.split_seed changes nothing: validation has rows of its own, and no limit draws others")
        if self.wanted.scaled and not any_decoded_smaller(self.main, self.wanted):
            found.append("data.decode=scaled changes none of the first images: no JPEG files twice as large as needed")
        for name, source in self.sources.items():
            first = first_stored(source)
            grey, bits = {stored.grey for stored in first}, max((stored.bits for stored in first), default=8)
            which = "the images" if name == "train" else f"the images for {name}"
            if bits > 8 and self.wanted.range is None:
                found.append(f"{which} have {bits} bits for each value, which become 8; see data.pixel_range")
            if self.wanted.channels != 4 and any(stored.transparent for stored in first):
                found.append(f"{which} have transparency, which is left out; data.channels: 4 keeps it")
            if name != "train" and len(grey) == 1 and grey != {self.wanted.channels == 1}:
                ours = "grey" if self.wanted.channels == 1 else "in colour"
                theirs = "grey" if grey == {True} else "in colour"
                found.append(f"{which} are {theirs}; they are converted, since those for training are {ours}")
        return tuple(found)

    @property
    def _draws_rows(self) -> bool:
        """Whether the rows to train on are drawn from those of the source."""
        data = self.job.data
        return "validation" not in self.extra or data.limit is not None or data.per_class is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all images when decoded."""
        return math.prod(self.shape) * sum(source.rows for source in self.sources.values())

    def decode(self, read: Read = read) -> dict[str, Images]:
        """Every source, decoded, by its name."""
        skip = self.job.data.skip_unreadable
        images = {name: read(source, self.wanted, skip) for name, source in self.sources.items()}
        for name, decoded in images.items():
            self._check_shape(name, decoded.pixels.shape[1:], images["train"].pixels.shape[1:])
        return images

    def stream(self, decoder: Decoder) -> dict[str, Stream]:
        """Every source, by its name, as rows that are decoded on demand."""
        streams = {}
        wanted = replace(self.wanted, size=self.shape[:2])
        for name, source in self.sources.items():
            self._check_shape(name, probe(source, self.wanted), self.shape)
            streams[name] = Stream(source, small_labels(source), wanted, decoder, self.job.data.skip_unreadable)
        return streams

    def _check_shape(self, split: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
        if tuple(shape) != tuple(wanted):
            theirs, ours = (f"{s[1]} × {s[0]} pixels" for s in (shape, wanted))
            what = (
                f"its images are {theirs}, those for training {ours}; set data.image_size, such as {list(wanted[:2])}"
            )
            raise LehrError(f"data.{split}: {what}")


def wrong_split(data: DataSection, main: Source, extra: Mapping[str, Source]) -> tuple[str, str] | None:
    """What is wrong with how the job splits its rows, as (field, sentence); None if nothing is."""
    if data.group is not None and main.groups is None:
        return "data.group", f'"{main.name}" says no groups of its rows; leave data.group out'
    if "validation" in extra:
        asked = [name for name in ("fold", "group", "stratify") if getattr(data, name) not in (None, "auto")]
        if asked:
            form = source_form(data.source)
            instead = (
                "data.split=none deals all rows anew" if form and form.labels else "data.path, a path without them"
            )
            return f"data.{asked[0]}", f'"{main.name}" has validation rows of its own; allowed: {instead}'
        return None
    _, parts = data.fold_of or (2, 2)
    what, rows = f"{parts} folds" if data.fold else "training and validation", main.rows
    if data.fold and rows < parts:
        return "data.fold", f'"{main.name}" has {rows} rows, fewer than {parts} folds; allowed: folds={max(2, rows)}'
    if data.stratify == "labels" and strata_of(main.labels(), parts) is None:
        return "data.stratify", "labels: the labels of this task cannot be dealt evenly; allowed: auto, none"
    if main.groups is None:
        return None
    groups = np.unique(main.groups)
    if len(groups) < parts:
        found = "one group" if len(groups) == 1 else f"{len(groups)} groups"
        instead = f"folds={len(groups)}" if len(groups) >= 2 else "another data.group, or none"
        return "data.group", f'"{main.name}" has {found} by {data.group}, too few for {what}; allowed: {instead}'
    if main.kind == "class" and len(main.classes) > 1:
        pairs = np.unique(np.stack([main.groups, np.asarray(main.labels(), np.int64)]), axis=1)
        if pairs.shape[1] == len(np.unique(pairs[1])) == len(groups):
            why = "so that a class would be in one split alone"
            return "data.group", f"{data.group} makes each class one group, {why}; allowed: another data.group, or none"
    test = extra.get("test")
    if test is not None and test.groups is not None:
        shared = np.intersect1d(groups, test.groups)
        if len(shared):
            rows_shared = int(np.isin(test.groups, shared).sum())
            what = f"{len(shared):,} of the groups by {data.group} are among both the test rows and the others"
            return "data.group", f"{what} ({rows_shared:,} of {test.rows:,} test rows); allowed: data.test=none"
    return None


def group_notes(data: DataSection, main: Source, ids: tuple[Tensor, Tensor | None]) -> list[str]:
    """What came of groups: how many validate, and classes that are left without rows to train on."""
    training, held_out = ids
    assert main.groups is not None, "only of grouped rows"
    assert held_out is not None, "only where rows are held out"
    groups, chosen = len(np.unique(main.groups)), np.unique(main.groups[held_out.numpy()])
    rows, wanted = len(held_out), data.validation if isinstance(data.validation, float) else VALIDATION_SHARE
    wanted = 1 / data.fold_of[1] if data.fold_of else wanted
    grouped = f"grouped by {data.group} (data.group)"
    said = f"{grouped}: {len(chosen):,} of {groups:,} groups validate, {rows:,} of {main.rows:,} rows"
    notes = [f"{said} ({rows / main.rows:.1%}; asked: {wanted:.1%})"]
    if main.kind == "class":
        labels = np.asarray(main.labels(), np.int64)
        only = np.setdiff1d(labels[held_out.numpy()], labels[training.numpy()])
        names = ", ".join(main.classes[label] for label in only[:5] if label >= 0)
        if names:
            notes.append(f"nothing is trained on class {names}: its rows are in groups that validate")
    return notes


def label_kind(job: TrainJob) -> LabelKind:
    """What the job's task reads of each row. Raises JobError where there is no such task."""
    if not tasks.is_own(job.task.name):
        return form_of(job.task.name).labels
    try:
        return tasks.find_task(job.task.name, job.task.options).labels
    except ValueError as error:
        raise job.error("task.name", str(error)) from error


def augmentations(
    job: TrainJob, compiled: bool = False, move: Move | None = None, choose: Choose | None = None
) -> Augment:
    """The job's augmentations.

    Args:
        move: moves the targets of a task whose labels are places in the image.
        choose: chooses what a row learns in an epoch.

    Raises:
        JobError: one is unknown or has a wrong option.
        Untrusted: one is code that nobody allowed.
        OwnCodeError: one of the user's own cannot be built.
    """
    steps, own = [], {}
    for number, entry in enumerate(job.data.augment):
        field = f"data.augment.{number}"
        if is_own(entry.name):
            own[number] = _own(job, field, entry)
            steps.append((entry.name, entry.options))
            continue
        known = {**AUGMENTATIONS, **MIXES}
        if entry.name not in known:
            allowed = ", ".join([*known, "torchvision.transforms.v2:Name", "my_package.module:name"])
            raise job.error(field, f'"{entry.name}" is not an augmentation; allowed: {allowed}')
        function = known[entry.name]
        check_call(function, entry.options, skip=("images", "others", "draw"), field=field, error=job.error)
        if problem := wrong_value(entry.options):
            raise job.error(f"{field}.{problem[0]}", problem[1])
        steps.append((entry.name, entry.options))
    return Augment(steps, job.seed, compiled, own, move, choose)


def _own(job: TrainJob, field: str, entry: AugmentEntry) -> Own:
    """An augmentation that does not come with lehr."""
    try:
        own = Own(entry.name, entry.options)
        check_call(own.found, entry.options, skip=own.skip, field=field, error=job.error)
        return own.build()
    except ValueError as error:
        raise job.error(field, str(error)) from error


def splits(job: TrainJob, data: Mapping[str, Images | Stream]) -> Splits:
    """The rows for training, validation and test: a pure function of the labels and the seed of the split."""
    train = data["train"]
    _refuse_by_class(job, train.labels)
    training, held_out = split_sets(job, train.labels, "validation" in data, train.groups)
    validation = train.rows(held_out) if held_out is not None else _all_rows(data["validation"])
    chosen: RowSet | Tensor = training
    if job.data.per_class is not None:
        chosen = _at_most_per_class(train, torch.from_numpy(training.ids()), job.data.per_class, split_seed(job))
    rows = train.rows(chosen)
    _refuse_one_class(job, rows)
    return Splits(rows, validation, _all_rows(data["test"]) if "test" in data else None)


def training_rows(job: TrainJob, opened: OpenedSources) -> int:
    """How many rows a job trains on, before any is decoded: those that cannot be read count too."""
    labels = opened.main.labels()
    ids, _ = split_ids(job, labels, "validation" in opened.extra, opened.main.groups)
    if job.data.per_class is None:
        return len(ids)
    return int(np.minimum(np.bincount(labels[ids.numpy()]), job.data.per_class).sum())


def held_out_rows(job: TrainJob, opened: OpenedSources) -> np.ndarray | None:
    """int64: the rows of the main source that are held out for validation; None where validation has its own."""
    _, held_out = split_ids(job, opened.main.labels(), "validation" in opened.extra)
    return None if held_out is None else held_out.numpy()


def split_seed(job: TrainJob) -> int:
    """The seed that decides which rows are held out, and which are left out."""
    return job.seed if job.data.split_seed is None else job.data.split_seed


def split_ids(
    job: TrainJob, labels: Labels, own_validation: bool, groups: np.ndarray | None = None
) -> tuple[Tensor, Tensor | None]:
    """The numbers of the rows to train on, with `data.limit` but before `data.per_class`, and of those held out.

    Args:
        labels: of the source of the training rows; of classes, integers [rows], each is held out in the same
            proportion.
        own_validation: whether the validation rows are another source; then none are held out: None.
        groups: int64 [rows], equal for rows that must be in one split; None where each row is for itself.
    """
    training, held_out = split_sets(job, labels, own_validation, groups)
    return torch.from_numpy(training.ids()), None if held_out is None else torch.from_numpy(held_out.ids())


def split_sets(
    job: TrainJob, labels: Labels, own_validation: bool, groups: np.ndarray | None = None
) -> tuple[RowSet, RowSet | None]:
    """The same as sets, which take a bit a row."""
    seed, training, held_out = split_seed(job), RowSet(len(labels)), None
    if not own_validation:
        held_out = _held_out(job.data, labels, groups, seed)
        training = held_out.others()
    if job.data.limit is not None and job.data.limit < len(training):
        positions = first_of_order(key(seed, "limit"), len(training), np.array([job.data.limit]))
        training = RowSet.from_ids(len(labels), training.at(positions.ids()))
    return training, held_out


def _held_out(data: DataSection, labels: Labels, groups: np.ndarray | None, seed: int) -> RowSet:
    """The rows to validate on: a share of them, or a fold."""
    share = data.validation if isinstance(data.validation, float) else VALIDATION_SHARE
    number, parts = data.fold_of or (2, 2)
    shares = [1 / parts] * parts if data.fold else [1 - share, share]
    by_class = isinstance(labels, np.ndarray) and one_class_each(labels)
    alike = data.stratify == "labels" or (data.stratify == "auto" and (by_class or data.fold is not None))
    if groups is None and not data.fold and (by_class or not alike):
        return held_out_by_class(labels, share, seed) if alike else held_out_by_chance(len(labels), share, seed)
    strata = strata_of(labels, parts) if alike else None
    if groups is not None:
        part = deal_groups(groups, strata, shares, seed)
    elif data.fold or (strata is not None and strata.ndim > 1):
        part = deal_rows(strata, len(labels), shares, seed)
    elif strata is not None:
        return held_out_by_class(strata, share, seed)
    else:
        return held_out_by_chance(len(labels), share, seed)
    return RowSet.from_ids(len(labels), np.flatnonzero(part == number - 1))


def _refuse_one_class(job: TrainJob, train: DataSubset) -> None:
    """Raises JobError where the rows that are left for training are all of one class."""
    if len(train.classes) < 2 or not one_class_each(train.labels_at(torch.arange(min(1, len(train))))):
        return
    counts = train.class_counts()
    if int((counts > 0).sum()) == 1:
        field = "data.limit" if job.data.limit is not None else "data"
        what = f"all {len(train)} rows to train on are of one class, {train.classes[int(counts.argmax())]}"
        raise job.error(field, f"{what}; allowed: rows of two classes or more")


def _refuse_by_class(job: TrainJob, labels: Labels) -> None:
    """Raises JobError for what counts rows by their class, where a row has no one class."""
    if one_class_each(labels):
        return
    for field, value, usual in (("per_class", job.data.per_class, None), ("sampling", job.data.sampling, "shuffle")):
        if value != usual:
            instead = "type data.limit=100" if field == "per_class" else "allowed: shuffle"
            raise job.error(f"data.{field}", f"needs one class a row, and {job.task.name} has none; {instead}")


def _at_most_per_class(data: Images | Stream, ids: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of these rows per class; a smaller count gives a subset of a larger one."""
    if isinstance(data, Images) and data.unreadable:
        ids = ids[~torch.isin(ids, torch.tensor(data.unreadable))]
    order = ids[permutation(key(seed, "per class"), len(ids))]
    labels = torch.from_numpy(np.array(data.labels))[order]
    chosen = [order[labels == label][:count] for label in labels.unique()]
    return torch.cat(chosen).sort().values if chosen else ids


def _all_rows(data: Images | Stream) -> DataSubset:
    return data.rows(RowSet(len(data)))
