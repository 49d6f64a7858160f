"""Tables of the record as Parquet. Not in `records.py`, since pyarrow and numpy take a fifth of a second to import."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lehr.errors import RunError
from lehr.runs.bounded import read_row_groups
from lehr.runs.columns import COLUMNS, Column

MOST_BYTES = 256 << 20  # of a part, decoded: three million steps


def to_parquet(kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> bytes:
    """A part of a table, with every declared column. Raises RunError where the columns do not fit together."""
    buffer = io.BytesIO()
    pq.write_table(_table(kind, columns), buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """A part of a table. Raises ValueError where it is damaged, too large, or holds more than plain values.

    Ray Data registers a type whose values pyarrow unpickles wherever they are looked at.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = read_row_groups(file, MOST_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    for column in table.schema:
        if is_extension(column.type):
            raise ValueError(f"its column {column.name} is of type {column.type}, not plain values")
    return table


def is_extension(kind: pa.DataType) -> bool:
    """Whether a type is, or is made of, one that some library registered with pyarrow."""
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    if isinstance(kind, pa.DictionaryType):
        inner.append(kind.value_type)
    return isinstance(kind, pa.BaseExtensionType) or any(map(is_extension, inner))


def joined(kind: str, parts: Sequence[pa.Table]) -> pa.Table:
    """The parts as one table, with every declared column. Raises ValueError where they do not fit together."""
    try:
        return pa.concat_tables([_empty(kind), *parts], promote_options="default")
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def merged(kind: str, parts: Sequence[bytes]) -> bytes:
    """Several parts as one. Raises ValueError where they do not fit together."""
    buffer = io.BytesIO()
    pq.write_table(joined(kind, [from_parquet(part) for part in parts]), buffer, write_page_checksum=True)
    return buffer.getvalue()


def before(kind: str, table: pa.Table, step: int) -> pa.Table:
    """The rows that a checkpoint of `step` covers: steps before it, and epochs that ended by then."""
    steps = np.asarray(table["step"].to_numpy(), np.float64)  # NaN where a row has no step
    late = steps >= step if kind == "steps" else steps > step
    return table.filter(pa.array(~late & (step > 0)))


def first_step(tables: Sequence[pa.Table]) -> int | None:
    """The first step in some tables; None where there is none."""
    found = [pc.min(table["step"]).as_py() for table in tables if table.num_rows]
    return min((step for step in found if step is not None), default=None)


def _table(kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pa.Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise RunError(f"{kind}: columns must have one length; got {lengths or 'no columns'}")
    rows = next(iter(lengths.values()))
    declared = COLUMNS[kind]
    arrays, fields = [], []
    # Every part has every declared column: `pyarrow.parquet.read_table` takes a directory's schema from its first part.
    for name in [*declared, *(name for name in columns if name not in declared)]:
        column = declared.get(name)
        try:
            array = _array(columns.get(name, [None] * rows), column)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise RunError(f'{kind}: column "{name}" does not hold numbers: {error}') from error
        if column or array.null_count < rows:  # a column of the task's own that is all null has no type yet
            arrays.append(array)
            fields.append(_field(name, array.type, column or Column("1", "metric of the task")))
    return pa.table(arrays, schema=pa.schema(fields))


def _array(values: Sequence[Any] | np.ndarray, column: Column | None) -> pa.Array[Any]:
    plain = values if isinstance(values, np.ndarray) else [v.item() if hasattr(v, "item") else v for v in values]
    if column is None and any(isinstance(value, str) for value in plain):
        return pa.array(plain, type=pa.string())
    array = pa.array(plain, type=pa.float64(), from_pandas=False)  # NaN is a value, not a null
    return array.cast(column.type) if column else array  # raises for fractions in a column of whole numbers


def _field(name: str, type_: pa.DataType, column: Column) -> pa.Field[Any]:
    timing = "true" if column.timing else "false"
    return pa.field(name, type_, metadata={"unit": column.unit, "description": column.description, "timing": timing})


def _empty(kind: str) -> pa.Table:
    return pa.schema([_field(name, pa.type_for_alias(c.type), c) for name, c in COLUMNS[kind].items()]).empty_table()
