"""Parquet files: a column `image` (binary) and a column `label` (int64), class names in the schema metadata.

An image is an encoded file, or raw uint8 pixels if the metadata gives their `shape: height,width,channels` or a column
`shape` gives it for each row. If a folder contains folders `train`, `validation` and `test`, these are its splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from lehr.data.sources.base import (
    ErrorFactory,
    Part,
    Source,
    class_names,
    file_system,
    join_path,
    number_from_environment,
    read_with_retries,
    replace_labels,
    split_folders,
)
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.runs.bounded import TooLarge, read_row_groups
from lehr.runs.tables import is_extension

MOST_BYTES = "LEHR_MOST_ROW_GROUP_BYTES"
"""Environment variable: the most bytes of a row group when decoded; by default `DEFAULT_MOST_BYTES`."""
DEFAULT_MOST_BYTES = 2 << 30
MOST_ROWS = 1 << 24  # in a row group; other programs write at most 2 ** 20


def most_bytes() -> int:
    """The most bytes of a decoded row group. Raises LehrError for a LEHR_MOST_ROW_GROUP_BYTES that is not a number."""
    return number_from_environment(MOST_BYTES, DEFAULT_MOST_BYTES)


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a Parquet file.

    Attributes:
        first: the position of its first row in the file.
        columns: those of `image`, `label` and `shape` that the file has.
        shape: (height, width, channels) if all images are raw pixels of this shape.
    """

    path: str
    row_group: int
    first: int
    rows: int
    columns: tuple[str, ...]
    shape: tuple[int, ...] | None = None

    def labels(self) -> np.ndarray:
        return self._columns(["label"])["label"].to_numpy().astype(np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self._columns(list(self.columns))
        table = table if rows is None else table.take(pa.array(rows, pa.int64()))
        if self.shape and "shape" not in self.columns:
            return table.append_column("shape", pa.array([self.shape] * len(table), pa.list_(pa.int32())))
        return table

    def name(self, row: int) -> str:
        return f"{self.path} row {self.first + row}"

    def _columns(self, names: list[str]) -> pa.Table:
        def read() -> pa.Table:
            filesystem, path = file_system(self.path)
            with filesystem.open_input_file(path) as file:
                return read_row_groups(pq.ParquetFile(file), most_bytes(), names, [self.row_group])

        try:
            table = read_with_retries(self.path, read)
        except TooLarge as error:
            what = f"row group {self.row_group} of {self.path} cannot be read: {error}"
            allowed = f"at most a thousandfold, and {most_bytes():,} bytes or what {MOST_BYTES} is set to"
            raise LehrError(f"data: {what}; allowed: {allowed}") from error
        if "label" in names and table["label"].null_count:  # a missing label is outside the classes, which is checked
            labels = table["label"].cast(pa.int64()).fill_null(pa.scalar(-1, pa.int64()))
            return replace_labels(table, labels.to_numpy())
        return table


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """The rows of a Parquet file, or of all Parquet files in a folder."""
    assert section.path is not None, "DataSection requires a path for this source"
    return _open(section.path, "data.path", job_error)


def _open(root: str, field: str, job_error: ErrorFactory) -> Source:
    try:
        filesystem, path = file_system(root)
        kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise job_error(field, f'"{root}" does not exist')
        if kind == FileType.File:
            return parquet_files([root], root, field, job_error)
        inside = filesystem.get_file_info(FileSelector(path, recursive=True))
        paths = [entry.path.removeprefix(path).lstrip("/") for entry in inside if entry.path.endswith(".parquet")]
    except (OSError, ValueError) as error:
        raise job_error(field, f"cannot be read: {str(error).splitlines()[0]}") from error
    if not paths:
        raise job_error(field, f'"{root}" contains no .parquet file')
    splits = split_folders(sorted({name.split("/")[0] for name in paths if "/" in name}))
    if splits and all("/" in name for name in paths):
        sources = {split: _open(join_path(root, folder), field, job_error) for split, folder in splits.items()}
        return replace(sources.pop("train"), name=root, other_splits=sources)
    return parquet_files([join_path(root, name) for name in sorted(paths)], root, field, job_error)


def parquet_files(paths: list[str], name: str, field: str, job_error: ErrorFactory) -> Source:
    """The source of these files, in this order. Raises JobError for a file of another form."""
    parts: list[Part] = []
    classes: tuple[str, ...] | None = None
    for path in paths:
        schema, metadata = _footer(path, field, job_error)
        _check_columns(schema, path, field, job_error)
        _check_sizes(metadata, path, field, job_error)
        try:
            names = class_names(schema.metadata)
        except ValueError as error:
            raise job_error(field, f'"{path}" has class names in its metadata that cannot be read: {error}') from None
        if classes is not None and names is not None and names != classes:
            raise job_error(field, f'"{path}" has different class names from the files before it')
        classes = classes or names
        columns = tuple(column for column in ("image", "label", "shape") if column in schema.names)
        shape = _shape((schema.metadata or {}).get(b"shape"), path, field, job_error)
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            parts.append(ParquetPart(path, group, first, rows, columns, shape))
            first += rows
    if classes is None:
        what = f'"{name}" has no class names; allowed: a key classes in the schema metadata, its names comma-separated'
        raise job_error(field, what)
    if not sum(part.rows for part in parts):
        raise job_error(field, f'"{name}" has no rows')
    return Source(name, tuple(parts), classes)


def _footer(path: str, field: str, job_error: ErrorFactory) -> tuple[pa.Schema, pq.FileMetaData]:
    filesystem, inner = file_system(path)
    try:
        with filesystem.open_input_file(inner) as file:
            footer = pq.ParquetFile(file)
            return footer.schema_arrow, footer.metadata
    except pa.ArrowInvalid:
        raise job_error(field, f'"{path}" is not a Parquet file') from None


def _check_columns(schema: pa.Schema, path: str, field: str, job_error: ErrorFactory) -> None:
    """Raises JobError unless there are images as binary and labels as whole numbers."""
    if missing := {"image", "label"} - set(schema.names):
        what = f"has no column {' and '.join(sorted(missing))}; its columns are {', '.join(schema.names)}"
        raise job_error(field, f'"{path}" {what}')
    for column, fits, allowed in (
        ("label", pa.types.is_integer, "whole numbers"),
        ("image", _is_binary, "encoded images or raw pixels as binary"),
        ("shape", lambda kind: not is_extension(kind), "lists of whole numbers"),
    ):
        if column in schema.names and not fits(schema.field(column).type):
            what = f"has a column {column} of type {schema.field(column).type}; allowed: {allowed}"
            raise job_error(field, f'"{path}" {what}')


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


def _is_binary(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _shape(text: bytes | None, path: str, field: str, job_error: ErrorFactory) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.decode().replace(" ", "").split(",")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        what = f'has the shape "{text.decode()}" in its metadata; allowed: height,width,channels'
        raise job_error(field, f'"{path}" {what}')
    return tuple(int(side) for side in sides)
