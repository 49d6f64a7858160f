"""Data sets that are tables: which columns are the images and the labels, and the source that they make."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from lehr.data.annotations import WrongAnnotations
from lehr.data.sources.base import ErrorFactory, LabelledPart, Part, Source
from lehr.data.sources.image_columns import (
    COLUMNS,
    WrongImages,
    as_images,
    can_be_image,
    choose_image,
    hugging_face_classes,
    is_binary,
)
from lehr.data.sources.label_columns import WrongLabels, choose_columns, read_columns
from lehr.data.sources.masks import mask_column, masked
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.runs.tables import is_extension
from lehr.tasks.forms import LabelKind


class Chunk(Protocol):
    """Some rows of a table that are read together."""

    @property
    def rows(self) -> int: ...

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        """These columns of the rows at these positions, by default all, as they are."""
        ...

    def name(self, row: int) -> str:
        """Where a person finds the row at this position."""
        ...


class TabularPart(Part, Chunk, Protocol):
    """A part that gives columns of its table too."""


@dataclass(frozen=True)
class TablePart:
    """The images of a chunk; the labels are laid over it.

    Attributes:
        images: the column of the images, or those of their pixels.
        folder: what paths in structs are relative to.
        ready: whether its columns are those of a part's table already, `image`, `shape` and `dtype`.
    """

    chunk: Chunk
    images: tuple[str, ...]
    folder: str = ""
    ready: bool = False

    @property
    def rows(self) -> int:
        return self.chunk.rows

    def labels(self) -> np.ndarray:
        raise NotImplementedError("LabelledPart has them")

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        return self.chunk.columns(names, rows)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        if self.ready:
            return self.chunk.columns(list(COLUMNS), rows)
        table = self.chunk.columns(list(self.images), rows)
        try:
            return pa.table(as_images([table[name] for name in self.images], self.folder))
        except ValueError as error:
            raise LehrError(f"data: {self.name(0)} and what follows: {error}") from error

    def name(self, row: int) -> str:
        return self.chunk.name(row)


def some(table: pa.Table, rows: Sequence[int] | None) -> pa.Table:
    """The rows at these positions, in this order; by default all."""
    if rows is None:
        return table
    for at, field in enumerate(table.schema):
        if pa.types.is_binary_view(field.type) or pa.types.is_string_view(field.type):  # which pyarrow cannot take
            plain = pa.large_binary() if pa.types.is_binary_view(field.type) else pa.large_string()
            table = table.set_column(at, field.name, table[field.name].cast(plain))
    return table.take(pa.array(rows, pa.int64()))


@dataclass(frozen=True)
class Wanted:
    """What is read as the images and the labels.

    Attributes:
        kind: what a row is labelled with. columns: those of the labels that the job names. image: the column of the
            images that it names. beside: columns that it names for something else, so that they are no labels.
    """

    kind: LabelKind = "class"
    columns: tuple[str, ...] = ()
    image: str | None = None
    classes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, section: DataSection, kind: LabelKind) -> Wanted:
        beside = tuple(filter(None, (section.split, section.group)))
        return cls(kind, section.label_columns, section.columns.image, tuple(section.classes or ()), beside)


def table_source(
    chunks: Sequence[Chunk],
    schema: pa.Schema,
    name: str,
    field: str,
    job_error: ErrorFactory,
    wanted: Wanted,
    form: str,
    folder: str = "",
    *,
    ready: bool = False,
) -> Source:
    """The source of these chunks, in this order. Raises JobError where images or labels are not found in them."""
    if not sum(chunk.rows for chunk in chunks):
        raise job_error(field, f'"{name}" has no rows')
    known = hugging_face_classes(schema.metadata)
    images, labels = chosen_columns(schema, name, field, job_error, wanted, tuple(known))
    check_columns(schema, (*images, *labels), name, field, job_error)
    parts = [TablePart(chunk, images, folder, ready) for chunk in chunks if chunk.rows]
    found = with_labels(parts, known.get(labels[0]), name, field, job_error, wanted, images, labels, form)
    return replace(found, there=tuple(schema.names))


def in_splits(path: str, sources: dict[str, Source], notes: tuple[str, ...]) -> Source:
    """The training rows with the other splits beside them. A split without any label is left out, and that is told:
    Hugging Face writes test rows so that are kept for a competition."""
    train = sources.pop("train")
    without = [name for name, source in sources.items() if source.unlabelled]
    told = tuple(f"the split {name} of {path} has no labels, and is left out" for name in without)
    others = {name: source for name, source in sources.items() if name not in without}
    return replace(train, name=path, other_splits=others, notes=(*train.notes, *notes, *told))


def chosen_columns(
    schema: pa.Schema, path: str, field: str, job_error: ErrorFactory, wanted: Wanted, with_names: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The columns of the images and of the labels."""
    masks: list[str] = []
    if wanted.kind == "mask":
        try:
            candidates = [each.name for each in schema if can_be_image(each.type)]
            masks = [mask_column(wanted.columns, candidates, schema.names)]
        except WrongAnnotations as error:
            at = "data.columns.label" if wanted.columns else field
            raise job_error(at, f'"{path}": {error}') from None
        schema = schema.remove(schema.get_field_index(masks[0]))
    try:
        images = choose_image(schema, wanted.image)
    except WrongImages as error:
        raise job_error("data.columns.image" if wanted.image else field, f'"{path}" {error}') from None
    if masks:
        return images, masks
    others = [name for name in schema.names if name in images or name == "shape" or name in wanted.beside]
    others += [each.name for each in schema if is_binary(each.type) or pa.types.is_struct(each.type)]
    try:
        return images, choose_columns(wanted.columns, schema.names, wanted.kind, others, with_names)
    except WrongLabels as error:
        at = "data.columns.label" if error.column in wanted.columns else field
        raise job_error(at, f'"{path}" {error}') from None


def spoken(columns: Sequence[str]) -> str:
    return columns[0] if len(columns) == 1 else f"{columns[0]} to {columns[-1]}"


def with_labels(
    parts: Sequence[TabularPart],
    known: tuple[str, ...] | None,
    name: str,
    field: str,
    job_error: ErrorFactory,
    wanted: Wanted,
    images: Sequence[str],
    columns: list[str],
    form: str,
) -> Source:
    """The rows with labels of another kind, or whose classes are those that occur; they are read now, and kept in
    memory."""
    if wanted.kind == "mask":
        return _with_masks(parts, known, name, field, job_error, wanted, images, columns[0], form)
    starts = np.cumsum([0, *(part.rows for part in parts)])

    def where(row: int) -> str:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[number].name(row - int(starts[number]))

    try:
        tables = [part.columns(columns) for part in parts]
        whole = pa.concat_tables([_looked_up(each) for each in tables], promote_options="permissive")
        found = read_columns({each: whole[each].combine_chunks() for each in columns}, wanted.kind, where, known)
    except WrongLabels as error:
        text, at = str(error), "data.columns.label" if error.column in wanted.columns else field
        raise job_error(at, f'"{name}" {text}' if text.startswith("has ") else f'"{name}": {text}') from None
    except (KeyError, pa.ArrowException) as error:
        raise job_error(field, f'"{name}": its files differ in their label columns: {error}') from error
    labelled = [
        LabelledPart(part, found.labels[start : start + part.rows])
        for part, start in zip(parts, starts.tolist(), strict=False)
    ]
    shown = (spoken(images), spoken(columns))
    return Source(name, tuple(labelled), found.names, kind=wanted.kind, form=form, columns=shown)


def _with_masks(
    parts: Sequence[TabularPart],
    known: tuple[str, ...] | None,
    name: str,
    field: str,
    job_error: ErrorFactory,
    wanted: Wanted,
    images: Sequence[str],
    column: str,
    form: str,
) -> Source:
    """The rows with the masks that a column holds, which are read with the images."""
    pairs: list[tuple[Part, Part]] = []
    for part in parts:
        folder = getattr(part, "folder", "") or posixpath.dirname(getattr(part, "path", ""))
        pairs.append((part, TablePart(part, (column,), folder)))
    try:
        masks, names = masked(pairs, known or (), wanted.classes)
    except (WrongAnnotations, LehrError) as error:
        raise job_error(field, f'"{name}": {str(error).removeprefix("data: ")}') from None
    shown = (spoken(images), column)
    return Source(name, masks, names, kind="mask", form=form, columns=shown)


def _looked_up(table: pa.Table) -> pa.Table:
    """Without dictionaries, which each file has of its own."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table[field.name].cast(field.type.value_type))
    return table


def check_columns(schema: pa.Schema, columns: Sequence[str], path: str, field: str, job_error: ErrorFactory) -> None:
    """Raises JobError unless there are these columns, of plain types."""
    if missing := [name for name in columns if name not in schema.names]:
        what = f"has no column {' and '.join(missing)}; its columns are {', '.join(schema.names)}"
        raise job_error(field, f'"{path}" {what}')
    for column in dict.fromkeys((*columns, "shape")):
        kind = schema.field(column).type if column in schema.names else pa.null()
        if is_extension(kind) and not isinstance(kind, pa.FixedShapeTensorType):
            what = f"has a column {column} of type {kind}; allowed: plain values"
            raise job_error(field, f'"{path}" {what}')
