"""Parquet files: a column `image` (binary) and a column `label` (int64), class names in the schema metadata. Labels of
other kinds, and from other columns, are read as `label_columns.py` says.

An image is an encoded file, or raw pixels if the metadata has their `shape: height,width,channels` or a column `shape`
has it for each row; they are uint8, or of the type that the metadata has as `dtype` (`uint16`). If a folder contains
folders `train`, `validation` and `test`, or files whose names begin so, these are its splits. Empty files and row
groups have no part, and what begins with `_` or a dot is not read: Spark writes such files. A column `split` does for
rows what such folders do; `row_columns.py` reads it, and the groups of rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileType

from lehr.data.sources.base import (
    NO_LABEL,
    ErrorFactory,
    LabelledPart,
    Source,
    class_names,
    file_system,
    join_path,
    number_from_environment,
    read_with_retries,
    replace_labels,
    wrong_classes,
)
from lehr.data.sources.label_columns import WrongLabels, choose_columns, read_columns
from lehr.data.sources.listing import kind_of, list_folder, shown
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.splits import split_of
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.runs.bounded import TooLarge, read_row_groups
from lehr.runs.tables import is_extension
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
        columns: those of `image`, `label` and `shape` that the file has.
        shape: (height, width, channels) if all images are raw pixels of this shape.
        dtype: their type, as numpy names it.
    """

    path: str
    row_group: int
    first: int
    rows: int
    columns: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    dtype: str = "uint8"

    def labels(self) -> np.ndarray:
        return self._columns(["label"])["label"].to_numpy().astype(np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self._columns(list(self.columns))
        table = table if rows is None else table.take(pa.array(rows, pa.int64()))
        if self.shape and "shape" not in self.columns:
            table = table.append_column("shape", pa.array([self.shape] * len(table), pa.list_(pa.int32())))
        if self.dtype != "uint8":
            table = table.append_column("dtype", pa.array([self.dtype] * len(table)))
        return table

    def name(self, row: int) -> str:
        return f"{self.path} row {self.first + row}"

    def all_columns(self) -> list[str]:
        """The columns of its file, whatever they hold."""
        filesystem, path = file_system(self.path)

        def read() -> list[str]:
            with filesystem.open_input_file(path) as file:
                return list(pq.ParquetFile(file).schema_arrow.names)

        return read_with_retries(self.path, read)

    def of_labels(self, columns: list[str]) -> pa.Table:
        """These columns of all its rows, as they are."""
        return self._columns(columns, as_classes=False)

    def _columns(self, names: list[str], *, as_classes: bool = True) -> pa.Table:
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
        if not as_classes:
            return table
        if "label" in names and table.schema.field("label").type != pa.int64():
            table = replace_labels(table, table["label"].cast(pa.int64(), safe=False))
        if "label" in names and table["label"].null_count:
            table = replace_labels(table, table["label"].fill_null(pa.scalar(NO_LABEL, pa.int64())))
        return table


@dataclass(frozen=True)
class Wanted:
    """What is read as the labels.

    Attributes:
        kind: what a row is labelled with. columns: those that the job names.
    """

    kind: LabelKind = "class"
    columns: tuple[str, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether it is one class a row, as a number in the column `label`."""
        return self == Wanted()


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind = "class") -> Source:
    """The rows of a Parquet file, or of all Parquet files in a folder."""
    assert section.path is not None, "DataSection requires a path for this source"
    source = _open(section.path, "data.path", job_error, Wanted(kind, section.label_columns))
    return with_splits(source, section, job_error)


def _open(root: str, field: str, job_error: ErrorFactory, wanted: Wanted) -> Source:
    try:
        filesystem, path = file_system(root)
        kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise job_error(field, f'"{root}" does not exist')
        if kind == FileType.File:
            return parquet_files([root], root, field, job_error, wanted)
        listing = list_folder(filesystem, path)
    except (OSError, ValueError) as error:
        raise job_error(field, f"cannot be read: {str(error).splitlines()[0]}") from error
    listing.files = [name for name in listing.files if not any(part.startswith("_") for part in name.split("/"))]
    paths = sorted(name for name in listing.files if kind_of(name) == ENDING)
    notes = listing.notes(root, set(paths).__contains__)
    if not paths:
        raise job_error(field, f'"{root}" contains no .parquet file' + "".join(f"; {note}" for note in notes))
    sources = {
        split: parquet_files([join_path(root, each) for each in files], join_path(root, name), field, job_error, wanted)
        for split, (name, files) in _splits(root, paths, field, job_error).items()
    }
    train = sources.pop("train")
    return replace(train, name=root, other_splits=sources, notes=notes)


def _splits(root: str, paths: list[str], field: str, job_error: ErrorFactory) -> dict[str, tuple[str, list[str]]]:
    """By split: its name, and its files. It is a folder at the top, or else how names of files begin (`train-00000-…`).

    Files of a single split, or of none, are all for training. Raises JobError for a mixture.
    """
    folders = any("/" in name for name in paths)
    files: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        top = path.split("/")[0]
        files[top if "/" in path else "" if folders else re.split(r"[^A-Za-z]", top)[0]].append(path)
    named = {name: split for name in files if (split := split_of(name))}
    if not named or len(files) == 1:
        return {"train": ("", paths)}
    if len(named) == len(files) == len(set(named.values())) and "train" in named.values():
        return {split: (name, files[name]) for name, split in named.items()}
    others = shown(name or "files in no folder" for name in files if name not in named)
    what = f'"{root}" has Parquet files of the splits {shown(named)}' + (f" beside others ({others})" if others else "")
    allowed = "one folder for each of train, validation and test, and nothing else; or data.path, data.validation and "
    raise job_error(field, f"{what}; allowed: {allowed}data.test, each a folder or a file of {root}")


def parquet_files(
    paths: list[str], name: str, field: str, job_error: ErrorFactory, wanted: Wanted = Wanted()
) -> Source:
    """The source of these files, in this order. Raises JobError for a file of another form."""
    parts: list[ParquetPart] = []
    classes: tuple[str, ...] | None = None
    for path in paths:
        schema, metadata = _footer(path, field, job_error)
        _check_columns(schema, path, field, job_error, USUAL if wanted.usual else ("image", "shape"))
        _check_sizes(metadata, path, field, job_error)
        try:
            names = class_names(schema.metadata)
        except ValueError as error:
            raise job_error(field, f'"{path}" has class names in its metadata that cannot be read: {error}') from None
        if classes is not None and names is not None and names != classes:
            raise job_error(field, f'"{path}" has different class names from the files before it')
        classes = classes or names
        if names is not None and (problem := wrong_classes(names)):
            raise job_error(field, f'"{path}": {problem}')
        taken = ("image", "label", "shape") if wanted.usual else ("image", "shape")
        columns = tuple(column for column in taken if column in schema.names)
        dtype = _dtype((schema.metadata or {}).get(b"dtype"), path, field, job_error)
        shape = _shape((schema.metadata or {}).get(b"shape"), path, field, job_error)
        first = 0
        for group in range(metadata.num_row_groups):
            if rows := metadata.row_group(group).num_rows:
                parts.append(ParquetPart(path, group, first, rows, columns, shape, dtype))
            first += rows
    if not wanted.usual:
        return _with_labels(tuple(parts), classes, name, field, job_error, wanted)
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


def _with_labels(
    parts: tuple[ParquetPart, ...],
    known: tuple[str, ...] | None,
    name: str,
    field: str,
    job_error: ErrorFactory,
    wanted: Wanted,
) -> Source:
    """The rows with labels of another kind, or from other columns; these are read now, and kept in memory."""
    if not parts:
        raise job_error(field, f'"{name}" has no rows')
    there, _ = _footer(parts[0].path, field, job_error)
    starts = np.cumsum([0, *(part.rows for part in parts)])

    def where(row: int) -> str:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[number].name(row - int(starts[number]))

    try:
        columns = choose_columns(wanted.columns, there.names, wanted.kind, ("image", "shape"))
        tables = [part.of_labels(columns) for part in parts]
        whole = pa.concat_tables(tables, promote_options="permissive")
        found = read_columns({each: whole[each].combine_chunks() for each in columns}, wanted.kind, where, known)
    except WrongLabels as error:
        text, at = str(error), "data.labels" if error.column in wanted.columns else field
        raise job_error(at, f'"{name}" {text}' if text.startswith("has ") else f'"{name}": {text}') from None
    except (KeyError, pa.ArrowException) as error:
        raise job_error(field, f'"{name}": its files differ in their label columns: {error}') from error
    labelled = [
        LabelledPart(part, found.labels[start : start + part.rows])
        for part, start in zip(parts, starts.tolist(), strict=False)
    ]
    return Source(name, tuple(labelled), found.names, kind=wanted.kind)


USUAL = ("image", "label", "shape")


def _check_columns(
    schema: pa.Schema, path: str, field: str, job_error: ErrorFactory, columns: tuple[str, ...] = USUAL
) -> None:
    """Raises JobError unless there are images as binary and labels as whole numbers."""
    if missing := {"image", "label"}.intersection(columns) - set(schema.names):
        what = f"has no column {' and '.join(sorted(missing))}; its columns are {', '.join(schema.names)}"
        raise job_error(field, f'"{path}" {what}')
    for column, fits, allowed in (
        ("label", pa.types.is_integer, "whole numbers"),
        ("image", _is_binary, "encoded images or raw pixels as binary"),
        ("shape", lambda kind: not is_extension(kind), "lists of whole numbers"),
    ):
        if column in columns and column in schema.names and not fits(schema.field(column).type):
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


def _dtype(text: bytes | None, path: str, field: str, job_error: ErrorFactory) -> str:
    """The type of raw pixels, as numpy names it."""
    name = "uint8" if text is None else text.decode(errors="replace")
    if name not in DTYPES:
        raise job_error(field, f'"{path}" has the dtype "{name}" in its metadata; allowed: {", ".join(DTYPES)}')
    return name
