"""Where images come from. A source is a list of parts, each read on its own, so that many processes can share the work.

To add one: write a file with a function (section, refuse) -> Source and name it in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable

from lehr.data.sources.base import ErrorFactory, Part, Source
from lehr.data.sources.digits import digits
from lehr.data.sources.files import files
from lehr.data.sources.function import function
from lehr.data.sources.images import images
from lehr.data.sources.parquet import parquet
from lehr.data.sources.torchvision_sets import torchvision_set
from lehr.job import DataSection

__all__ = ["SOURCES", "Part", "Refuse", "Source", "open_source", "open_split", "returns_dataset"]

SOURCES: dict[str, Callable[[DataSection, ErrorFactory], Source]] = {
    "digits": digits,
    "images": images,
    "files": files,
    "parquet": parquet,
    "torchvision:NAME": torchvision_set,
    "my_package.module:function": function,
}


def returns_dataset(section: DataSection) -> bool:
    """Whether the source is a function that returns a Ray Dataset, so that it needs Ray to be opened."""
    return ":" in section.source and not section.source.startswith("torchvision:")


def open_source(section: DataSection, refuse: ErrorFactory) -> Source:
    """The source that a job's `data` section names.

    Raises:
        JobError: the source is unknown, missing, empty or of the wrong form.
    """
    if returns_dataset(section):
        return function(section, refuse)
    name = "torchvision:NAME" if section.source.startswith("torchvision:") else section.source
    if name not in SOURCES:
        raise refuse("data.source", f'"{section.source}" is not a source; allowed: {", ".join(SOURCES)}')
    return SOURCES[name](section, refuse)


def open_split(section: DataSection, split: str, refuse: ErrorFactory) -> Source:
    """One split of a source: `train` is all of its rows where it has no others.

    Raises:
        JobError: as `open_source`; or the source has no such split of its own.
    """
    source = open_source(section, refuse)
    if split == "train":
        return source
    if split not in source.own:
        known = ", ".join(["train", *source.own])
        raise refuse("split", f"{source.name} has no split {split} of its own; allowed: {known}")
    return source.own[split]
