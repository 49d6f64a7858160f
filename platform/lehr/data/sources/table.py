"""A CSV or Parquet table with a line for each image: a column with its file, and columns with its labels.

The column of the files is `file`, or one of the other names in `FILE_COLUMNS`; paths are relative to the table's
folder.
A column `split` (train, validation, test), or the one that `data.split` names, says which rows are which. `data.labels`
names the columns of the labels, `data.group` that of the groups.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow.fs import FileType

from lehr.data.sources.base import (
    NO_LABEL,
    ErrorFactory,
    LabelledPart,
    Part,
    Source,
    file_system,
    read_with_retries,
)
from lehr.data.sources.images import FILES_PER_PART, FilesPart
from lehr.data.sources.label_columns import LabelColumns, WrongLabels, choose_columns, read_columns
from lehr.data.sources.splits import (
    COLUMN,
    WrongColumn,
    group_codes,
    group_column,
    rows_of_splits,
    split_column,
)
from lehr.job import DataSection
from lehr.runs.bounded import read_row_groups
from lehr.tasks.forms import LabelKind

FILE_COLUMNS = ("file", "files", "filename", "file_name", "image", "image_path", "path", "filepath")
MOST_BYTES = 1 << 30
ENDINGS = (".csv", ".tsv", ".txt", ".parquet")


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The images that the table lists, with their labels."""
    assert section.path is not None, "DataSection requires a path for this source"
    path = section.path
    table = _read(path, job_error)
    files = next((name for name in FILE_COLUMNS if name in table.schema.names), None)
    if files is None:
        has = f"its columns are {', '.join(table.schema.names[:8])}"
        what = f'"{path}" has no column with the files of the images; {has}; allowed: a column {FILE_COLUMNS[0]}'
        raise job_error("data.path", what)
    if not len(table):
        raise job_error("data.path", f'"{path}" has no rows')
    names = _files(table, files, path, job_error)

    def where(row: int) -> str:
        return f"row {row + 1} ({names[row]})"

    try:
        by_split = split_column(section.split, table.schema.names)
        by_group = section.group and group_column(section.group, table.schema.names)
        used = filter(None, (files, COLUMN, by_split, by_group))
        columns = choose_columns(section.label_columns, table.schema.names, kind, tuple(used))
        taken = {name: table[name].combine_chunks() for name in columns}
        found = read_columns(taken, kind, where)
        groups = group_codes(table[by_group].to_pylist(), where) if by_group else None
        splits = {"train": np.arange(len(table))}
        if by_split:
            splits = rows_of_splits(by_split, table[by_split].to_pylist(), where)
    except (WrongLabels, WrongColumn) as error:
        text = str(error)
        if isinstance(error, WrongColumn):
            field = error.field or "data.path"
        else:
            field = "data.labels" if error.column in section.label_columns else "data.path"
        raise job_error(field, f'"{path}" {text}' if text.startswith("has ") else f'"{path}": {text}') from None
    except (pa.ArrowException, OverflowError) as error:
        raise job_error("data.path", f'"{path}": {str(error).splitlines()[0]}') from error
    sources = {
        split: replace(_source(path, kind, names, found, rows), groups=None if groups is None else groups[rows])
        for split, rows in splits.items()
    }
    train = sources.pop("train")
    return replace(train, other_splits=sources, notes=_missing(path, names, job_error))


def _read(path: str, job_error: ErrorFactory) -> pa.Table:
    """The table. Raises JobError where there is none."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        raise job_error("data.path", f'"{path}" is no table; allowed: a file that ends in {", ".join(ENDINGS)}')
    try:
        filesystem, inner = file_system(path)
    except ValueError as error:
        raise job_error("data.path", str(error)) from error
    info = filesystem.get_file_info(inner)
    if not info.is_file:
        what = "does not exist" if info.type == FileType.NotFound else "is no file"
        raise job_error("data.path", f'"{path}" {what}')
    if (info.size or 0) > MOST_BYTES:
        raise job_error("data.path", f'"{path}" has {info.size:,} bytes; allowed: {MOST_BYTES:,}')

    def read() -> pa.Table:
        with filesystem.open_input_file(inner) as file:
            if ending == ".parquet":
                return read_row_groups(pq.ParquetFile(file), MOST_BYTES)
            parse = pacsv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",")
            convert = pacsv.ConvertOptions(
                strings_can_be_null=False, null_values=["", "NA", "NaN", "nan", "null", "None"]
            )
            source: Any = file
            return pacsv.read_csv(source, parse_options=parse, convert_options=convert)

    try:
        return read_with_retries(path, read)
    except UnicodeDecodeError as error:
        raise job_error("data.path", f'"{path}" is not in UTF-8: {error.reason}') from error
    except Exception as error:  # LehrError too: it does not name the field
        raise job_error("data.path", str(error).removeprefix("data: ").splitlines()[0]) from error


def _files(table: pa.Table, column: str, path: str, job_error: ErrorFactory) -> list[str]:
    """The file of each row. Raises JobError where one is missing, or is no text."""
    names = table[column].to_pylist()
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise job_error("data.path", f'"{path}": row {row + 1} has no file in its column {column}')
    return [posixpath.normpath(str(name).strip().replace(os.sep, "/")) for name in names]


def _missing(path: str, names: list[str], job_error: ErrorFactory) -> tuple[str, ...]:
    """A sentence about files on this machine that are not there; they count as unreadable. Raises JobError for all."""
    if "://" in path:
        return ()
    folder = os.path.dirname(path)
    gone = [name for name in names if not os.path.exists(os.path.join(folder, name))]
    if len(gone) == len(names):
        looked = os.path.join(folder, gone[0])
        allowed = "allowed: paths relative to the table's folder, with their endings, or whole paths"
        raise job_error("data.path", f'"{path}": none of its files is there, such as {looked}; {allowed}')
    few = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
    return (f"{len(gone):,} of the {len(names):,} files in {path} are not there: {few}",) if gone else ()


def _source(path: str, kind: LabelKind, names: list[str], found: LabelColumns, rows: np.ndarray) -> Source:
    """The rows of one split. Files with absolute paths are taken as they are."""
    parts: list[Part] = []
    waiting = iter(rows.tolist())
    folder = path.rpartition("/")[0] or ("" if "/" not in path else "/")
    while some := list(islice(waiting, FILES_PER_PART)):
        for absolute in (False, True):
            chosen = [row for row in some if names[row].startswith("/") is absolute]
            if chosen:
                files = tuple(names[row].lstrip("/") for row in chosen)
                bare = FilesPart("/" if absolute else folder or ".", files, (NO_LABEL,) * len(files))
                parts.append(LabelledPart(bare, found.labels[chosen]))
    return Source(path, tuple(parts), found.names, kind=kind)
