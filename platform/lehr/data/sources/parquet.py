"""Parquet files: a column of images (`image_columns.py`) and a column of labels (`label_columns.py`).

Class names stand in the schema metadata: `classes`, which `lehr data pack` writes, or what Hugging Face's `datasets`
writes of a ClassLabel; else they are the labels that occur. An image may be raw pixels, if the metadata has their
`shape: height,width,channels` or a column `shape` has it for each row; they are uint8, or of the type that the metadata
has as `dtype` (`uint16`). Splits are as `shards.py` says, or as a column says (`row_columns.py`). Empty files and row
groups have no part.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.data.sources.base import (
    NO_LABEL,
    ErrorFactory,
    Source,
    class_names,
    file_system,
    number_from_environment,
    read_with_retries,
    wrong_classes,
)
from lehr.data.sources.image_columns import as_images, hugging_face_classes, is_binary
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.shards import find_shards
from lehr.data.sources.tabular import Wanted, check_columns, chosen_columns, in_splits, some, spoken, with_labels
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.runs.bounded import TooLarge, read_row_groups
from lehr.tasks.forms import LabelKind

MOST_BYTES = "LEHR_MOST_ROW_GROUP_BYTES"
"""Environment variable: the most bytes of a row group when decoded; by default `DEFAULT_MOST_BYTES`."""
DEFAULT_MOST_BYTES = 2 << 30
ENDING = ".parquet"
DTYPES = ("uint8", "bool", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
"""The types of raw pixels."""
MOST_ROWS = 1 << 24  # in a row group; other programs write at most 2 ** 20


def most_bytes() -> int:
    """The most bytes of a decoded row group. Raises LehrError for a LEHR_MOST_ROW_GROUP_BYTES that is not a number."""
    return number_from_environment(MOST_BYTES, DEFAULT_MOST_BYTES)


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a Parquet file.

    Attributes:
        first: the position of its first row in the file.
        images: the column of the images, or those of their pixels.
        label: the column of the labels, whole numbers; empty if they are not read from here.
        shape_column: whether a column `shape` has the shape of each row's raw pixels.
        shape: (height, width, channels) if all images are raw pixels of this shape.
        dtype: their type, as numpy names it.
    """

    path: str
    row_group: int
    first: int
    rows: int
    images: tuple[str, ...] = ("image",)
    label: str = "label"
    shape_column: bool = False
    shape: tuple[int, ...] | None = None
    dtype: str = "uint8"

    def labels(self) -> np.ndarray:
        return as_whole_numbers(self.columns([self.label])[self.label])

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        extra = ["shape"] * self.shape_column
        table = self.columns(list(dict.fromkeys([*self.images, *extra, *filter(None, [self.label])])), rows)
        try:
            found = dict(as_images([table[name] for name in self.images], posixpath.dirname(self.path)))
        except ValueError as error:
            raise LehrError(f"data: {self.name(0)} and what follows: {error}") from error
        if self.shape_column and self.images != ("shape",):
            found["shape"] = table["shape"].combine_chunks()
        elif self.shape:
            found["shape"] = pa.array([self.shape] * len(table), pa.list_(pa.int32()))
        if self.dtype != "uint8":
            found["dtype"] = pa.array([self.dtype] * len(table))
        if self.label:
            found["label"] = pa.array(as_whole_numbers(table[self.label]))
        return pa.table(found)

    def name(self, row: int) -> str:
        return f"{self.path} row {self.first + row}"

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        """These columns of the rows at these positions, by default all, as they are."""

        def read() -> pa.Table:
            filesystem, path = file_system(self.path)
            with filesystem.open_input_file(path) as file:
                return read_row_groups(pq.ParquetFile(file), most_bytes(), names, [self.row_group])

        try:
            return some(read_with_retries(self.path, read), rows)
        except TooLarge as error:
            what = f"row group {self.row_group} of {self.path} cannot be read: {error}"
            allowed = f"at most a thousandfold, and {most_bytes():,} bytes or what {MOST_BYTES} is set to"
            raise LehrError(f"data: {what}; allowed: {allowed}") from error


def as_whole_numbers(column: pa.ChunkedArray[Any]) -> np.ndarray:
    """int64 [rows]; null is NO_LABEL."""
    numbers = column.cast(pa.int64(), safe=False)
    if numbers.null_count:
        numbers = numbers.fill_null(pa.scalar(NO_LABEL, pa.int64()))
    return numbers.to_numpy().astype(np.int64)


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind = "class") -> Source:
    """The rows of a Parquet file, or of all Parquet files in a folder or of a pattern."""
    assert section.path is not None, "DataSection requires a path for this source"
    wanted = Wanted.of(section, kind)
    shards = find_shards(section.path, (ENDING,), "data.path", job_error)
    sources = {
        split: parquet_files(paths, name, "data.path", job_error, wanted)
        for split, (name, paths) in shards.splits.items()
    }
    return with_splits(in_splits(section.path, sources, shards.notes), section, job_error)


def parquet_files(paths: list[str], name: str, field: str, job_error: ErrorFactory, wanted: Wanted) -> Source:
    """The source of these files, in this order. Raises JobError for a file of another form."""
    parts: list[ParquetPart] = []
    classes: tuple[str, ...] | None = None
    images: tuple[str, ...] = ("image",)
    there: tuple[str, ...] = ()
    labels, number, form = [""], "", "Parquet"
    for at, path in enumerate(paths):
        schema, metadata = _footer(path, field, job_error)
        known, said = _known_classes(schema, path, field, job_error)
        if at == 0:
            form += " as Hugging Face writes it" if b"huggingface" in (schema.metadata or {}) else ""
            there = tuple(schema.names)
            images, labels = chosen_columns(schema, path, field, job_error, wanted, tuple(known))
            named = known.get(labels[0]) or said
            number = labels[0] if named and _lazily(schema, labels, wanted) else ""
        check_columns(schema, (*images, *labels), path, field, job_error)
        if number and not _lazily(schema, labels, wanted):
            kind = schema.field(number).type
            what = f"has a column {number} of type {kind}; allowed: whole numbers, as in the files before it"
            raise job_error(field, f'"{path}" {what}')
        _check_sizes(metadata, path, field, job_error)
        names = known.get(labels[0]) or said
        if classes is not None and names is not None and names != classes:
            raise job_error(field, f'"{path}" has different class names from the files before it')
        classes = classes or names
        if names is not None and (problem := wrong_classes(names)):
            raise job_error(field, f'"{path}": {problem}')
        dtype = _dtype((schema.metadata or {}).get(b"dtype"), path, field, job_error)
        shape = _shape((schema.metadata or {}).get(b"shape"), path, field, job_error)
        shapes = "shape" in schema.names and len(images) == 1 and is_binary(schema.field(images[0]).type)
        first = 0
        for group in range(metadata.num_row_groups):
            if rows := metadata.row_group(group).num_rows:
                parts.append(ParquetPart(path, group, first, rows, images, number, shapes, shape, dtype))
            first += rows
    if not parts:
        raise job_error(field, f'"{name}" has no rows')
    if number:
        found = Source(name, tuple(parts), classes or (), form=form, columns=(spoken(images), spoken(labels)))
    else:
        found = with_labels(tuple(parts), classes, name, field, job_error, wanted, images, labels, form)
    return replace(found, there=there)


def _lazily(schema: pa.Schema, labels: list[str], wanted: Wanted) -> bool:
    """Whether each part can say its labels by itself: they are the numbers of classes whose names are known."""
    return wanted.kind == "class" and len(labels) == 1 and pa.types.is_integer(schema.field(labels[0]).type)


def _known_classes(
    schema: pa.Schema, path: str, field: str, job_error: ErrorFactory
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...] | None]:
    """The class names that a file says: by column, and for whatever its labels are."""
    try:
        return hugging_face_classes(schema.metadata), class_names(schema.metadata)
    except ValueError as error:
        raise job_error(field, f'"{path}" has class names in its metadata that cannot be read: {error}') from None


def schema_of(path: str, field: str, job_error: ErrorFactory) -> pa.Schema:
    """The columns of a Parquet file. Raises JobError for what is none."""
    return _footer(path, field, job_error)[0]


def _footer(path: str, field: str, job_error: ErrorFactory) -> tuple[pa.Schema, pq.FileMetaData]:
    filesystem, inner = file_system(path)
    try:
        with filesystem.open_input_file(inner) as file:
            footer = pq.ParquetFile(file)
            return footer.schema_arrow, footer.metadata
    except pa.ArrowInvalid:
        raise job_error(field, f'"{path}" is not a Parquet file') from None


def _check_sizes(metadata: pq.FileMetaData, path: str, field: str, job_error: ErrorFactory) -> None:
    """Raises JobError for row groups that are no data set: of too many rows, or of shapes without end."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows > MOST_ROWS:
            what = f"has {group.num_rows:,} rows in its row group {number}; allowed: {MOST_ROWS:,}"
            raise job_error(field, f'"{path}" {what}')
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.split(".")[0] == "shape" and column.num_values > 3 * group.num_rows:
                what = "has shapes of more than three numbers; allowed: height, width, channels"
                raise job_error(field, f'"{path}" {what}')


def _shape(text: bytes | None, path: str, field: str, job_error: ErrorFactory) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.decode().replace(" ", "").split(",")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        what = f'has the shape "{text.decode()}" in its metadata; allowed: height,width,channels'
        raise job_error(field, f'"{path}" {what}')
    return tuple(int(side) for side in sides)


def _dtype(text: bytes | None, path: str, field: str, job_error: ErrorFactory) -> str:
    """The type of raw pixels, as numpy names it."""
    name = "uint8" if text is None else text.decode(errors="replace")
    if name not in DTYPES:
        raise job_error(field, f'"{path}" has the dtype "{name}" in its metadata; allowed: {", ".join(DTYPES)}')
    return name
