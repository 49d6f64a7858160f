"""What columns beside images and labels say of rows: which split, and which group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from lehr.data.sources.base import ErrorFactory, LabelledPart, Part, Source
from lehr.data.sources.splits import (
    COLUMN,
    WrongColumn,
    group_codes,
    group_column,
    rows_of_splits,
    split_column,
    split_of,
)
from lehr.job import DataSection

FILE = "file"
"""What `data.group` is where all rows of a file belong together."""


def with_splits(source: Source, section: DataSection, job_error: ErrorFactory) -> Source:
    """The source with the splits and groups that its columns say, where the job asks for them or one is called split.

    Raises:
        JobError: a column is missing, or says of a row what is no split or no group.
    """
    try:
        there = list(source.there)
        column = split_column(section.split, there)
        if column and source.other_splits:
            if section.split:
                named = ", ".join(("train", *source.other_splits))
                raise WrongColumn("data.split", f"has files for its splits already, {named}; remove data.split")
            column = None
        if section.group is not None:
            source = _grouped(source, section.group, there)
            others = {name: _grouped(each, section.group, there) for name, each in source.other_splits.items()}
            source = replace(source, other_splits=others)
        if column is None:
            return source
        said = _values(source, column)
        if section.split is None and not _are_splits(said):
            what = f"its column {COLUMN} has other values than train, validation and test, and is not used"
            return replace(source, notes=(*source.notes, what))
        found = {name: source.select_rows(rows) for name, rows in rows_of_splits(column, said, source.name_of).items()}
    except WrongColumn as error:
        text = str(error)
        raise job_error(
            error.field or "data.path", f'"{source.name}" {text}' if text.startswith("has ") else text
        ) from None
    train = found.pop("train")
    return replace(train, other_splits=found, notes=source.notes)


def _are_splits(said: list[Any]) -> bool:
    return all(isinstance(each, str) and split_of(each.strip()) for each in set(said))


def _grouped(source: Source, column: str, there: list[str]) -> Source:
    if column == FILE and FILE not in there:
        files = [getattr(_bare(part), "path", source.name) for part in source.parts for _ in range(part.rows)]
        return replace(source, groups=group_codes(files, source.name_of))
    return replace(source, groups=group_codes(_values(source, group_column(column, there)), source.name_of))


def _values(source: Source, column: str) -> list[Any]:
    """What the column says of each row."""
    found: list[Any] = []
    for part in source.parts:
        bare = _bare(part)
        try:
            values: Any = bare.columns([column])[column]
        except (KeyError, pa.ArrowInvalid):
            raise WrongColumn(
                "", f"has no column {column} in {bare.path}; allowed: the same columns in every file"
            ) from None
        if not (_is_plain(values.type) or pa.types.is_dictionary(values.type)):
            raise WrongColumn("data.group", f"has a column {column} of type {values.type}; allowed: text or numbers")
        found += values.to_pylist()
    return found


def _is_plain(kind: pa.DataType) -> bool:
    fits = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating)
    more = (pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp, pa.types.is_null)
    return any(each(kind) for each in (*fits, *more))


def _bare(part: Part) -> Any:
    """The part of a file itself, without what was put around it."""
    while isinstance(part, LabelledPart):
        part = part.part
    return part
