"""What a folder of photographs holds: classes, splits, sizes, and what cannot be read."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lehr.data.decode import UnreadableImage, decode_image, size_of
from lehr.data.pixels import PixelFormat
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.data.sources.images import branching, by_folder, list_images
from lehr.errors import JobError
from lehr.formatting import count_of, format_path
from lehr.job import DataSection
from lehr.printing import one_line

LOOKED_AT, LOOK_SECONDS = 400, 5.0
"""Photographs that are decoded beforehand, and for how long at most; of few photographs, all are."""
USUAL_SIZE = (224, 224)  # that they are decoded to, for the time that it takes
MOST_SHOWN = 8  # classes in a sentence
MOST_UNREADABLE = 0.5  # share of the photographs; with more something else is wrong
SKIPPED = 0.01  # what a job skips unasked
ARCHIVES = {".zip": "unzip {0} -d {1}", ".tar": "mkdir {1} && tar -xf {0} -C {1}"}
ARCHIVES |= dict.fromkeys((".tgz", ".gz", ".bz2", ".xz"), ARCHIVES[".tar"])


@dataclass(frozen=True)
class Photographs:
    """What a folder of photographs holds.

    Attributes:
        folder: the folder whose folders are the classes, or the splits.
        counts: how many photographs there are of each class, those of all splits together.
        rows: by split, how many the folder has: `train`, and `validation` and `test` where it has such splits.
        smallest, largest: (width, height), by area, of those that were looked at.
        looked_at: how many were decoded.
        unreadable: name and reason of each of them that cannot be read.
        seconds: to read and decode one, on one core.
        notes: what is left out, and what else a person should know; a sentence each.
    """

    folder: str
    counts: Mapping[str, int]
    rows: Mapping[str, int]
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    looked_at: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many photographs there are."""
        return sum(self.rows.values())

    @property
    def skipped(self) -> float:
        """The share of unreadable ones that a job must allow: a little more than were found, of a sample twice that."""
        share = len(self.unreadable) / max(1, self.looked_at)
        if share <= SKIPPED:
            return SKIPPED
        return min(0.99, round(share * (1.1 if self.looked_at == self.total else 2) + 0.01, 2))

    @property
    def told(self) -> list[str]:
        """What was understood, for people: a sentence each, without full stops."""
        named = [f"{one_line(name)} {count:,}" for name, count in self.counts.items()]
        more = f", … ({len(named) - MOST_SHOWN} more)" if len(named) > MOST_SHOWN else ""
        where = format_path(Path(self.folder)) if "://" not in self.folder else self.folder
        lines = [
            f"{one_line(where)}: {count_of(self.total, 'image')} of {len(named)} classes: "
            f"{', '.join(named[:MOST_SHOWN])}{more}"
        ]
        if self.looked_at > len(self.unreadable):
            sizes = [f"{width} × {height}" for width, height in (self.smallest, self.largest)]
            span = f"{sizes[0]} to {sizes[1]}" if sizes[0] != sizes[1] else f"all {sizes[0]}"
            some = "" if self.looked_at == self.total else f" ({self.looked_at:,} of them were looked at)"
            lines.append(f"Sizes: {span} pixels{some}; all become the size that the network takes")
        if len(self.rows) > 1:
            lines.append("Splits of its own: " + ", ".join(f"{name} {rows:,}" for name, rows in self.rows.items()))
        if self.unreadable:
            few = ", ".join(f"{one_line(name)} ({one_line(why)})" for name, why in self.unreadable[:3])
            more = ", …" if len(self.unreadable) > 3 else ""
            lines.append(f"{count_of(len(self.unreadable), 'image')} cannot be read and will be skipped: {few}{more}")
        if alone := [one_line(name) for name, count in self.counts.items() if count == 1]:
            what = "has one image, which is" if len(alone) == 1 else "have one image each, which are"
            lines.append(f"{', '.join(alone[:MOST_SHOWN])} {what} trained on and never measured; more would help")
        return [*lines, *self.notes]


def look_at(data: DataSection) -> Photographs:
    """Looks at a folder of class folders, possibly inside others that hold nothing else.

    Args:
        data: of the job; its path is the folder.

    Raises:
        JobError: it is no such folder; the sentence says which layout is.
    """
    data, notes = _at_its_classes(data)
    source = open_source(data, lambda field, what: JobError(what, field=field))
    if data.classes:
        source = source.select_classes(tuple(data.classes))
    if len(source.classes) < 2:
        what = f"has one class, {one_line(source.classes[0])}, and there is nothing to tell apart"
        raise JobError(f"{_shown(source.name)} {what}; {_layout(source.name)}")
    sources = {"train": source, **source.other_splits}
    found = Photographs(
        folder=source.name,
        counts=_counts(source.classes, sources.values()),
        rows={name: each.rows for name, each in sources.items()},
        notes=(*notes, *source.notes),
    )
    found = _looked(found, sources, PixelFormat(USUAL_SIZE, channels=3))
    if len(found.unreadable) > MOST_UNREADABLE * found.looked_at:
        name, why = found.unreadable[0]
        what = f"{len(found.unreadable)} of {count_of(found.looked_at, 'image')} cannot be read, such as {name} ({why})"
        raise JobError(f"{_shown(source.name)}: {one_line(what)}; remove them, or save them again as JPEG")
    return found


def _at_its_classes(data: DataSection) -> tuple[DataSection, tuple[str, ...]]:
    """The section with the path at which classes or splits begin. Raises JobError where there are none."""
    root = data.path or ""
    if os.path.isfile(root):
        raise JobError(_a_file(root))
    if "://" not in root and not os.path.exists(root):
        raise JobError(f"{_shown(root)} does not exist; {_layout(root)}")
    listing = list_images(root, lambda _, what: JobError(what))
    folders = by_folder(listing.files)
    below, inside = branching(root, folders)
    if "" in inside:  # a class: the folder that holds it is asked for
        below, inside = root, folders
    if set(inside) <= {""}:
        count = len(listing.files)
        what = f"{count_of(count, 'image')} directly in it" if count else "no image that can be read in it"
        left = "".join(f". {note}" for note in listing.left_out)
        hint = _one_level_too_low(root) if count else ""
        raise JobError(f"{_shown(root)} has {what} and no folder for each class{left}; {_layout(root)}{hint}")
    if below == root:
        return data, ()
    note = f"The classes were found further down, in {_shown(below)}"
    return data.model_copy(update={"path": below}), (note,)


def _one_level_too_low(root: str) -> str:
    """What to name where the folder seems to be one of the classes."""
    if "://" in root:
        return ""
    above = os.path.dirname(os.path.abspath(root))
    folders = [name for name in os.listdir(above) if os.path.isdir(os.path.join(above, name))]
    return f", or, if this is one of the classes, name {_shown(above)}" if len(folders) > 1 else ""


def _a_file(path: str) -> str:
    ending = os.path.splitext(path)[1].lower()
    shown, folder = _shown(path), _shown(os.path.splitext(path)[0].removesuffix(".tar"))
    if ending in ARCHIVES:
        typed = ARCHIVES[ending].format(shlex.quote(shown), shlex.quote(folder))
        return f"{shown} is an archive; unpack it first: {typed}"
    return f"{shown} is a file; name the folder that has a folder of photographs for each class"


def _layout(root: str) -> str:
    where = _shown(root).rstrip("/")
    return f"make one folder for each class, such as {where}/cat/1.jpg and {where}/dog/7.jpg"


def _shown(path: str) -> str:
    return one_line(path if "://" in path else format_path(Path(path)))


def _counts(classes: tuple[str, ...], sources: Iterable[Source]) -> dict[str, int]:
    found = dict.fromkeys(classes, 0)
    for source in sources:
        for label, count in zip(*np.unique(source.labels(), return_counts=True), strict=True):
            found[source.classes[label]] = found.get(source.classes[label], 0) + int(count)
    return found


def _looked(found: Photographs, sources: Mapping[str, Source], wanted: PixelFormat) -> Photographs:
    """With what a look at some of the photographs shows; rows are in no order, so the first ones are a sample."""
    sizes: list[tuple[int, int]] = []
    unreadable: list[tuple[str, str]] = []
    looked, began = 0, time.perf_counter()
    for name, encoded in _files(sources):
        if looked == LOOKED_AT or time.perf_counter() - began > LOOK_SECONDS:
            break
        looked += 1
        try:
            decode_image(encoded, wanted)
            sizes.append(size_of(encoded))
        except UnreadableImage as error:
            unreadable.append((name, str(error)))
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    return replace(
        found,
        smallest=sizes[0] if sizes else (0, 0),
        largest=sizes[-1] if sizes else (0, 0),
        looked_at=looked,
        unreadable=tuple(unreadable),
        seconds=(time.perf_counter() - began) / max(1, looked),
    )


def _files(sources: Mapping[str, Source]) -> Iterator[tuple[str, bytes]]:
    for source in sources.values():
        for part in source.parts:
            for row in range(part.rows):
                yield part.name(row), part.read([row])["image"][0].as_py()
