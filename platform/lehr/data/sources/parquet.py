"""Parquet files: a column `image` (binary) and a column `label` (int64), class names in the schema metadata.

An image is an encoded file; or raw uint8 pixels, where the metadata says `shape: height,width,channels` or a column
`shape` says it for each row. A folder with folders `train`, `validation` and `test` has these as its own splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from lehr.data.sources.base import (
    ErrorFactory,
    Part,
    Source,
    class_names,
    file_system,
    join_path,
    reading,
    split_folders,
)
from lehr.job import DataSection


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a Parquet file. `shape` is (height, width, channels) where all images are raw and alike."""

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
                return pq.ParquetFile(file).read_row_group(self.row_group, columns=names)

        table = reading(self.path, read)
        if "label" in names and table["label"].null_count:  # no label is none of the classes, as its check will say
            place = table.schema.get_field_index("label")
            return table.set_column(place, "label", table["label"].fill_null(-1))
        return table


def parquet(section: DataSection, refuse: ErrorFactory) -> Source:
    assert section.path is not None, "the job file's own checks ask for data.path"
    return _at(section.path, "data.path", refuse)


def _at(where: str, field: str, refuse: ErrorFactory) -> Source:
    try:
        filesystem, path = file_system(where)
        info = filesystem.get_file_info(path)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise refuse(field, f'"{where}" does not exist')
        if info.type == pyarrow.fs.FileType.File:
            return parquet_files([where], where, field, refuse)
        inside = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise refuse(field, f"cannot be read: {str(error).splitlines()[0]}") from error
    paths = [entry.path.removeprefix(path).lstrip("/") for entry in inside if entry.path.endswith(".parquet")]
    if not paths:
        raise refuse(field, f'"{where}" holds no .parquet file')
    splits = split_folders(sorted({name.split("/")[0] for name in paths if "/" in name}))
    if splits and all("/" in name for name in paths):
        own = {split: _at(join_path(where, folder), field, refuse) for split, folder in splits.items()}
        return replace(own.pop("train"), name=where, own=own)
    return parquet_files([join_path(where, name) for name in sorted(paths)], where, field, refuse)


def parquet_files(paths: list[str], name: str, field: str, refuse: ErrorFactory) -> Source:
    """The source of these files, in this order. Raises JobError for a file that is not of the form."""
    parts: list[Part] = []
    classes: tuple[str, ...] | None = None
    for path in paths:
        filesystem, inner = file_system(path)
        try:
            with filesystem.open_input_file(inner) as file:
                footer = pq.ParquetFile(file)
                schema, metadata = footer.schema_arrow, footer.metadata
        except pa.ArrowInvalid:
            raise refuse(field, f'"{path}" is not a Parquet file') from None
        if missing := {"image", "label"} - set(schema.names):
            raise refuse(
                field,
                f'"{path}" has no column {" and ".join(sorted(missing))}; its columns are {", ".join(schema.names)}',
            )
        for column, holds, allowed in (
            ("label", pa.types.is_integer, "whole numbers"),
            ("image", _is_binary, "encoded images or raw pixels as binary"),
        ):
            if not holds(schema.field(column).type):
                raise refuse(
                    field, f'"{path}" has a column {column} of {schema.field(column).type}; allowed: {allowed}'
                )
        here = class_names(schema.metadata)
        if classes is not None and here is not None and here != classes:
            raise refuse(field, f'"{path}" names other classes than the files before it')
        classes = classes or here
        columns = tuple(column for column in ("image", "label", "shape") if column in schema.names)
        shape = _shape((schema.metadata or {}).get(b"shape"), path, field, refuse)
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            parts.append(ParquetPart(path, group, first, rows, columns, shape))
            first += rows
    if classes is None:
        raise refuse(field, f'"{name}" names no classes; allowed: class names, comma-separated, in the schema metadata')
    if not sum(part.rows for part in parts):
        raise refuse(field, f'"{name}" has no rows')
    return Source(name, tuple(parts), classes)


def _is_binary(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _shape(text: bytes | None, path: str, field: str, refuse: ErrorFactory) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.decode().replace(" ", "").split(",")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise refuse(field, f'"{path}" says shape "{text.decode()}"; allowed: height,width,channels')
    return tuple(int(side) for side in sides)
