"""What every source is made of, and what several of them share."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem

from lehr.data.labels import (
    NO_LABEL,
    Labels,
    Ragged,
    concatenate,
    from_column,
    object_array,
    to_column,
    without_label,
)
from lehr.errors import JobError, LehrError
from lehr.paths import misspelt_address, packaged_path
from lehr.runs.storage import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, PATIENCE_SECONDS
from lehr.tasks.forms import NOT_COUNTED, LabelKind

T = TypeVar("T")
BOX = 6
"""Numbers of a box: its class, its sides x0, y0, x1, y1, and 1 where it is around many things, else 0."""
ErrorFactory = Callable[[str, str], JobError]
"""From the job's field, such as `data.path`, and a sentence about it to the error to raise."""


class Part(Protocol):
    """One piece of a source, small enough to fit in memory. Parts are picklable."""

    @property
    def rows(self) -> int: ...

    def labels(self) -> Labels:
        """int64 [rows], or of another form (`lehr.data.labels`); read without the images."""
        ...

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        """The rows at these positions, in this order; by default all rows.

        Columns: `image` (binary) and `label` (int64, or as `lehr.data.labels` has it). An image is an encoded file;
            in a row whose `shape`
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
        kind: what a row is labelled with. Of `classes` and `numbers`, labels are [rows, names], a column for each of
            the names that `classes` lists.
        image_ids, category_ids: of each row, and of each class by its name, as the COCO JSON has them that they are
            from; empty for others.
        groups: int64 [rows], equal for rows that must be in one split (`group_codes`); None where the job asks for
            no groups.
        form: what the data are, in words: `Parquet as Hugging Face writes it`.
        columns: those of the images and of the labels, if they stand in columns.
        there: all columns that its rows have, whatever they hold; none where rows are files.
    """

    name: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    other_splits: Mapping[str, Source] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hint: str = ""
    kind: LabelKind = "class"
    image_ids: tuple[int, ...] = ()
    category_ids: Mapping[str, int] = field(default_factory=dict)
    groups: np.ndarray | None = None
    form: str = ""
    columns: tuple[str, str] | None = None
    there: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def unlabelled(self) -> bool:
        """Whether no row has a label."""
        return all(bool(without_label(part.labels()).all()) for part in self.parts)

    @property
    def starts(self) -> np.ndarray:
        """int64 [parts + 1]: the id of each part's first row, then the number of rows."""
        return np.cumsum([0, *(part.rows for part in self.parts)])

    def labels(self) -> Labels:
        """The label of every row: int64 [rows], or of another form."""
        return concatenate([part.labels() for part in self.parts])

    def name_of(self, row: int) -> str:
        """Where a person finds the image of this id."""
        starts = self.starts
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return self.parts[number].name(row - int(starts[number]))

    def relabel(self, classes: tuple[str, ...]) -> Source:
        """The same rows with labels that index `classes`, which must contain all of the source's own."""
        if classes == self.classes or self.kind == "captions":
            return self
        if self.kind == "boxes":
            return with_box_classes(self, classes, drop=False)
        if self.kind == "mask":
            return with_mask_classes(self, classes)
        if self.kind != "class":
            return self._columns(classes)
        table = tuple(classes.index(name) for name in self.classes)
        return replace(self, parts=tuple(RelabelledPart(part, table) for part in self.parts), classes=classes)

    def select_classes(self, classes: tuple[str, ...]) -> Source:
        """The rows of these classes, in all splits, with labels that index `classes`; of several classes or numbers all
        rows, with the labels of these alone."""
        if self.kind != "class":
            others = {split: source.select_classes(classes) for split, source in self.other_splits.items()}
            if self.kind == "mask":
                return replace(with_mask_classes(self, classes), other_splits=others)
            boxes = self.kind == "boxes"
            chosen = with_box_classes(self, classes, drop=True) if boxes else self._columns(classes)
            return replace(chosen, other_splits=others)
        table = np.full(len(self.classes), -1, np.int64)
        for label, name in enumerate(classes):
            if name in self.classes:
                table[self.classes.index(name)] = label
        parts, kept = [], []
        for part in self.parts:
            labels = look_up(table, whole_numbers(part), part.name)
            kept.append(labels >= 0)
            if len(selected := np.flatnonzero(labels >= 0)):
                parts.append(LabelledPart(SomeRows(part, as_small(selected)), as_small(labels[selected])))
        others = {split: source.select_classes(classes) for split, source in self.other_splits.items()}
        groups = None if self.groups is None else self.groups[np.concatenate(kept)]
        return replace(self, parts=tuple(parts), classes=classes, other_splits=others, groups=groups)

    def select_rows(self, rows: np.ndarray) -> Source:
        """These rows alone, int64 in ascending order, and no other splits."""
        parts: list[Part] = []
        for part, start in zip(self.parts, self.starts.tolist(), strict=False):
            inside = rows[(rows >= start) & (rows < start + part.rows)] - start
            if len(inside):
                parts.append(part if len(inside) == part.rows else SomeRows(part, as_small(inside)))
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, parts=tuple(parts), other_splits={}, groups=groups, notes=())

    def _columns(self, names: tuple[str, ...]) -> Source:
        """The same rows with labels for these names. A number that the source does not have is missing in every row; a
        class that it does not have is one that no row has, if it has any."""
        chosen = tuple(self.classes.index(name) if name in self.classes else NO_LABEL for name in names)
        other = 0 if self.kind == "classes" and self.classes else NO_LABEL
        return replace(self, parts=tuple(ColumnsPart(part, chosen, other) for part in self.parts), classes=names)


def whole_numbers(part: Part) -> np.ndarray:
    """The labels of a part that are one class for each row, int64 [rows]."""
    labels = part.labels()
    assert isinstance(labels, np.ndarray), "of a source whose kind is class"
    return labels


@dataclass(frozen=True)
class ColumnsPart:
    """A part whose label k is what `chosen[k]` was; where that is NO_LABEL, `other` in every row, of numbers NaN."""

    part: Part
    chosen: tuple[int, ...]
    other: int = NO_LABEL

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> np.ndarray:
        return self._of(self.part.labels())

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self.part.read(rows)
        return replace_labels(table, self._of(from_column(table["label"])))

    def name(self, row: int) -> str:
        return self.part.name(row)

    def _of(self, labels: Labels) -> np.ndarray:
        assert isinstance(labels, np.ndarray), "of a source whose kind is classes or numbers"
        missing = np.full((len(labels), 1), np.nan if labels.dtype.kind == "f" else self.other, labels.dtype)
        return np.concatenate([labels, missing], axis=1)[:, list(self.chosen)]


@dataclass(frozen=True)
class BoxClassesPart:
    """A part whose boxes of class k get the class `table[k]`; those with NO_LABEL there are left out, or stay so."""

    part: Part
    table: tuple[int, ...]
    drop: bool

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> Ragged:
        return self._of(self.part.labels())

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self.part.read(rows)
        return replace_labels(table, self._of(from_column(table["label"])))

    def name(self, row: int) -> str:
        return self.part.name(row)

    def _of(self, labels: Labels) -> Ragged:
        assert isinstance(labels, Ragged)
        values = labels.values.reshape(-1, BOX).copy()
        values[:, 0] = np.append(self.table, NO_LABEL)[values[:, 0].astype(np.int64)]
        kept = (values[:, 0] >= 0) | (not self.drop)
        row_of = np.repeat(np.arange(len(labels)), labels.lengths)
        left = Ragged.of(values[kept], np.bincount(row_of[kept], minlength=len(labels)))
        return Ragged(left.values, left.starts, labels.known)


def with_box_classes(source: Source, names: tuple[str, ...], *, drop: bool) -> Source:
    """The same rows, whose boxes have classes that index `names`.

    Args:
        drop: leave boxes of other classes out; else their class is NO_LABEL.
    """
    table = tuple(names.index(name) if name in names else NO_LABEL for name in source.classes)
    parts = tuple(BoxClassesPart(part, table, drop) for part in source.parts)
    return replace(source, parts=parts, classes=names)


@dataclass(frozen=True)
class MaskClassesPart:
    """A part whose pixels of class k get the class `table[k]`, one of 256; `NOT_COUNTED` stays."""

    part: Part
    table: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> Labels:
        return self.part.labels()

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        read, table = self.part.read(rows), np.array(self.table, np.uint8)
        masks = from_column(read["label"])
        return replace_labels(
            read, table[masks] if masks.dtype != object else object_array([table[each] for each in masks])
        )

    def name(self, row: int) -> str:
        return self.part.name(row)


def with_mask_classes(source: Source, names: tuple[str, ...]) -> Source:
    """The same rows with masks whose classes index `names`; pixels of other classes are not counted."""
    table = [names.index(name) if name in names else NOT_COUNTED for name in source.classes]
    table += [NOT_COUNTED] * (256 - len(table))
    if table[: len(names)] == list(range(len(names))) and len(names) == len(source.classes):
        return replace(source, classes=names)
    return replace(source, parts=tuple(MaskClassesPart(part, tuple(table)) for part in source.parts), classes=names)


@dataclass(frozen=True)
class LabelledPart:
    """A part with other labels, which are held in memory; integers may be of a smaller type than int64."""

    part: Part
    of_rows: Labels

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> Labels:
        return _one_class_whole(self.of_rows)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        labels = self.of_rows if rows is None else self.of_rows[np.asarray(rows, np.int64)]
        return replace_labels(self.part.read(rows), _one_class_whole(labels))

    def name(self, row: int) -> str:
        return self.part.name(row)


@dataclass(frozen=True)
class SomeRows:
    """Some rows of a part, with their labels; `selected` is their positions in it, integers [rows]."""

    part: Part
    selected: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.selected)

    def labels(self) -> Labels:
        return self.part.labels()[self.selected]

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        chosen = self.selected if rows is None else self.selected[np.asarray(rows, np.int64)]
        return self.part.read(chosen.tolist())

    def name(self, row: int) -> str:
        return self.part.name(int(self.selected[row]))


def as_small(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest type that holds them: a part is one of very many."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    return numbers.astype(np.result_type(np.min_scalar_type(min(low, -1)), np.min_scalar_type(high)))


def _one_class_whole(labels: Labels) -> Labels:
    return (
        labels.astype(np.int64)
        if isinstance(labels, np.ndarray) and labels.dtype.kind == "i" and labels.ndim == 1
        else labels
    )


@dataclass(frozen=True)
class RelabelledPart:
    """A part whose label k becomes `table[k]`."""

    part: Part
    table: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> np.ndarray:
        return look_up(np.array(self.table, np.int64), whole_numbers(self.part), self.part.name)

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


def replace_labels(table: pa.Table, labels: Labels | pa.ChunkedArray[Any]) -> pa.Table:
    """A part's table with other labels, or with some where it has none."""
    column = labels if isinstance(labels, pa.ChunkedArray) else to_column(labels)
    at = table.schema.get_field_index("label")
    return table.append_column("label", column) if at < 0 else table.set_column(at, "label", column)


def as_kind(source: Source, kind: LabelKind, *, optional: bool = False) -> Source:
    """A source of one class a row as one of another kind, in all splits: each class against the others; or, of names
    that are numbers, the number. Of a source without labels, rows without them.

    Args:
        optional: rows of classes that are no numbers have no label then.

    Raises:
        ValueError: a class is no number.
    """
    if source.kind == kind:
        return source
    names: tuple[str, ...] = source.classes
    values: np.ndarray = np.eye(len(source.classes), dtype=np.int8)
    if kind == "numbers":
        names, values = (("value",) if names else ()), np.zeros((0, 0))
        numbers = [_number(name) for name in source.classes]
        if odd := [name for name, each in zip(source.classes, numbers, strict=True) if not np.isfinite(each)]:
            if not optional:
                what = (
                    f'its class "{odd[0]}" is no number; allowed for regression: classes that are numbers, or a table'
                )
                raise ValueError(f"{what} with columns of numbers (data.source: table)")
            numbers = [np.nan] * len(numbers)
        values = np.array(numbers).reshape(-1, 1) if numbers else values
    missing = np.full((1, values.shape[1]), np.nan if kind == "numbers" else NO_LABEL, values.dtype)
    table = np.concatenate([values, missing])
    parts = tuple(LabelledPart(part, table[whole_numbers(part)]) for part in source.parts)
    others = {split: as_kind(other, kind, optional=optional) for split, other in source.other_splits.items()}
    return replace(source, parts=parts, classes=names, other_splits=others, kind=kind)


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan


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
