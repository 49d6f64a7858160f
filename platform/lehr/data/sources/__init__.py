"""Where images come from. A source is a list of parts, each read on its own, so that many processes share the work.

Which sources there are says `lehr.job.sources`: each is a module here with a function `open_source`. Modules that
sources build on import `lehr.data.sources.base`, never this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from lehr.data.sources import boxes, captions
from lehr.data.sources.base import ErrorFactory, Part, Source, as_kind, wrong_classes
from lehr.job import DataSection
from lehr.job.sources import SourceForm, source_form
from lehr.job.text import nearest
from lehr.tasks.forms import LabelKind

__all__ = ["ErrorFactory", "Part", "Source", "open_source", "open_split", "returns_dataset"]

SPLITS = ("train", "validation", "test")
"""The names that a split may be asked for by; a source has those of them that it has."""


class Opener(Protocol):
    """What the module of every source has as `open_source`; those whose form has `labels` get the kind of label too."""

    def __call__(self, section: DataSection, job_error: ErrorFactory, *kind: LabelKind) -> Source: ...


def opener(form: SourceForm) -> Opener:
    """The function that opens this form of data. Its module is imported when first used: some need Ray or torch."""
    function: Opener = import_module(f"{__name__}.{form.module}").open_source
    return function


def returns_dataset(section: DataSection) -> bool:
    """Whether the source is a function that returns a Ray Dataset, so that opening it needs Ray."""
    return _form_of(section).needs_ray


def open_source(
    section: DataSection, job_error: ErrorFactory, kind: LabelKind = "class", *, optional: bool = False
) -> Source:
    """The source that a job's `data` section names.

    Args:
        kind: what the task reads of each row.
        optional: rows whose labels are of no such kind are rows without labels.

    Raises:
        JobError: the source is missing, empty or of the wrong form, or has no labels of this kind.
    """
    form, field = _form_of(section), "data.path" if section.path else "data.source"
    source = opener(form)(section, job_error, *([kind] if form.labels or form.several else []))
    for each in (source, *source.other_splits.values()):
        if problem := wrong_classes(each.classes):
            raise job_error(field, f"{each.name}: {problem}")
    try:
        if source.kind != kind and "captions" in (source.kind, kind):
            return captions.as_kind(source, kind, optional=optional)
        change = boxes.as_kind if source.kind != kind and {"boxes", "mask"} & {source.kind, kind} else as_kind
        return change(source, kind, optional=optional)
    except ValueError as error:
        raise job_error(field, f"{source.name}: {error}") from None


def open_split(
    section: DataSection, split: str, job_error: ErrorFactory, kind: LabelKind = "class", *, optional: bool = False
) -> Source:
    """One split of a source. `train` is all of its rows if it has no other splits.

    Raises:
        JobError: as `open_source`; or the source has no split of this name.
    """
    source = open_source(section, job_error, kind, optional=optional)
    if split == "train":
        return source
    if split not in source.other_splits:
        known = ", ".join(["train", *source.other_splits])
        near = nearest(split, SPLITS) or split
        meant = f"did you mean {near}? " if near != split and near[0] == split[:1] else ""
        raise job_error("split", f"{source.name} has no split {split} of its own; {meant}allowed: {known}")
    return source.other_splits[split]


def _form_of(section: DataSection) -> SourceForm:
    form = source_form(section.source)
    assert form is not None, "DataSection accepts only known sources"
    return form
