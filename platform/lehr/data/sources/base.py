"""What every source is made of, and what several of them share."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem

from lehr.errors import JobError, LehrError
from lehr.paths import misspelt_address, packaged_path
from lehr.runs.storage import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, PATIENCE_SECONDS

T = TypeVar("T")
NO_LABEL = -1
"""The label of a row that has none."""
ErrorFactory = Callable[[str, str], JobError]
"""From the job's field, such as `data.path`, and a sentence about it to the error to raise."""


class Part(Protocol):
    """One piece of a source, small enough to fit in memory. Parts are picklable."""

    @property
    def rows(self) -> int: ...

    def labels(self) -> np.ndarray:
        """int64 [rows], read without the images."""
        ...

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        """The rows at these positions, in this order; by default all rows.

        Columns: `image` (binary) and `label` (int64). An image is an encoded file; in a row whose `shape`
        ([height, width, channels], an optional column) is not null it is the raw pixels, of the type that `dtype` (an
        optional column, as numpy names it) says, else uint8.

        Raises:
            LehrError: the files were deleted, are damaged or cannot be reached.
        """
        ...

    def name(self, row: int) -> str:
        """Where a person finds the image at this position: a path, a file and its row, an item of a data set."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set before decoding. The id of a row is its position over all parts.

    Attributes:
        name: its name in messages.
        parts: its rows, in order.
        classes: class names in label order.
        other_splits: its own splits besides the training rows, if any: `validation`, `test`.
        notes: what the user should know about it, one sentence each.
        hint: what to type if these are not the classes that were meant; empty if nothing suggests that.
    """

    name: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    other_splits: Mapping[str, Source] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hint: str = ""

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def starts(self) -> np.ndarray:
        """int64 [parts + 1]: the id of each part's first row, then the number of rows."""
        return np.cumsum([0, *(part.rows for part in self.parts)])

    def labels(self) -> np.ndarray:
        """int64 [rows]: the label of every row."""
        return np.concatenate([part.labels() for part in self.parts]) if self.parts else np.empty(0, np.int64)

    def name_of(self, row: int) -> str:
        """Where a person finds the image of this id."""
        starts = self.starts
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return self.parts[number].name(row - int(starts[number]))

    def relabel(self, classes: tuple[str, ...]) -> Source:
        """The same rows with labels that index `classes`, which must contain all of the source's own."""
        if classes == self.classes:
            return self
        table = tuple(classes.index(name) for name in self.classes)
        return replace(self, parts=tuple(RelabelledPart(part, table) for part in self.parts), classes=classes)

    def select_classes(self, classes: tuple[str, ...]) -> Source:
        """The rows of these classes, in all splits, with labels that index `classes`."""
        table = np.full(len(self.classes), -1, np.int64)
        for label, name in enumerate(classes):
            if name in self.classes:
                table[self.classes.index(name)] = label
        parts = []
        for part in self.parts:
            labels = look_up(table, part.labels(), part.name)
            if len(selected := np.flatnonzero(labels >= 0)):
                parts.append(PartSubset(part, tuple(selected.tolist()), tuple(labels[selected].tolist())))
        others = {split: source.select_classes(classes) for split, source in self.other_splits.items()}
        return replace(self, parts=tuple(parts), classes=classes, other_splits=others)


@dataclass(frozen=True)
class PartSubset:
    """Some rows of a part, with new labels.

    Attributes:
        selected: positions in the part.
        row_labels: the new label of each.
    """

    part: Part
    selected: tuple[int, ...]
    row_labels: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.selected)

    def labels(self) -> np.ndarray:
        return np.array(self.row_labels, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        rows = range(self.rows) if rows is None else rows
        table = self.part.read([self.selected[row] for row in rows])
        return replace_labels(table, np.array([self.row_labels[row] for row in rows], np.int64))

    def name(self, row: int) -> str:
        return self.part.name(self.selected[row])


@dataclass(frozen=True)
class RelabelledPart:
    """A part whose label k becomes `table[k]`."""

    part: Part
    table: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> np.ndarray:
        return look_up(np.array(self.table, np.int64), self.part.labels(), self.part.name)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self.part.read(rows)
        return replace_labels(table, look_up(np.array(self.table, np.int64), table["label"].to_numpy(), self.part.name))

    def name(self, row: int) -> str:
        return self.part.name(row)


def look_up(table: np.ndarray, labels: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """int64 [rows]: the entry of the table for each label; `NO_LABEL` stays.

    Raises LehrError for a label that the table does not have; `name` names the row at a position.
    """
    wrong = np.flatnonzero((labels < NO_LABEL) | (labels >= len(table)))
    if len(wrong):
        what = f"{name(int(wrong[0]))} has label {labels[wrong[0]]}; allowed: 0 to {len(table) - 1}"
        raise LehrError(f"data: {what}, one for each of its {len(table)} classes")
    return np.append(table, NO_LABEL)[labels]


def replace_labels(table: pa.Table, labels: np.ndarray | pa.ChunkedArray) -> pa.Table:
    """A part's table with other labels, int64 [rows]."""
    column = pa.array(labels) if isinstance(labels, np.ndarray) else labels
    return table.set_column(table.schema.get_field_index("label"), "label", column)


def file_system(path: str) -> tuple[FileSystem, str]:
    """The file system of a path or URI, and the path inside it.

    Raises:
        ValueError: there is no file system for this address; the sentence says so.
    """
    path = packaged_path(path)
    if problem := misspelt_address(path):
        raise ValueError(problem)
    try:
        return FileSystem.from_uri(path if "://" in path else Path(path).absolute().as_uri())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f'"{path}" cannot be reached: {str(error).splitlines()[0]}') from error


def read_with_retries(path: str, read: Callable[[], T]) -> T:
    """Returns `read()`, which reads the file at `path`. Remote files are retried while their store may recover.

    Raises:
        LehrError: the file was deleted, is damaged or cannot be reached; the sentence names it.
    """
    began, wait = time.monotonic(), FIRST_WAIT_SECONDS
    while True:
        try:
            return read()
        except FileNotFoundError:
            raise LehrError(f"data: {path} existed when the job started and has since been deleted") from None
        except pa.ArrowInvalid as error:
            raise LehrError(f"data: {path} is damaged: {str(error).splitlines()[0]}") from error
        except (OSError, pa.ArrowException) as error:
            if "://" not in path or time.monotonic() - began > PATIENCE_SECONDS:
                cause = str(getattr(error, "strerror", None) or error).splitlines()[0]
                raise LehrError(f"data: {path} cannot be read: {cause}") from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def join_path(path: str, inside: str) -> str:
    """A path or URI one or more levels deeper."""
    return f"{path.rstrip('/')}/{inside}"


def number_from_environment(variable: str, default: int) -> int:
    """A limit that the user may set. Raises LehrError where that is not a whole number above 0."""
    said = os.environ.get(variable)
    if said is None:
        return default
    if not said.isdecimal() or not int(said):
        raise LehrError(f'{variable}: "{said}" is not a limit; allowed: a whole number above 0')
    return int(said)


def class_names(metadata: Mapping[bytes, bytes] | None) -> tuple[str, ...] | None:
    """Class names from a Parquet schema's metadata: comma-separated, or a JSON list if a name contains a comma.

    Raises ValueError for what is neither.
    """
    text = (metadata or {}).get(b"classes", b"").decode()
    if not text:
        return None
    if not text.startswith("["):
        return tuple(text.split(","))
    try:
        names = json.loads(text)
    except RecursionError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("not a list of names")
    return tuple(names)


def wrong_classes(classes: Sequence[str]) -> str:
    """What is wrong with these class names: one is empty or there twice; empty if nothing is."""
    if "" in classes:
        return f"its class number {classes.index('')} has an empty name; allowed: a name for every class"
    twice = [name for name, count in Counter(classes).items() if count > 1]
    names = ", ".join(twice[:5]) + (", …" if len(twice) > 5 else "")
    return f"it has several classes of the same name: {names}; allowed: different names" if twice else ""


def class_metadata(classes: Sequence[str]) -> dict[str, str]:
    """The metadata from which `class_names` reads the classes."""
    plain = not any("," in name for name in classes) and not classes[0].startswith("[")
    return {"classes": ",".join(classes) if plain else json.dumps(list(classes), ensure_ascii=False)}
