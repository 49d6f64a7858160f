"""Reading Parquet that others wrote within a limit of memory: a file of some hundred bytes can decode to gigabytes.

A dictionary holds a value once for any number of rows, and codecs shrink zeros to a thousandth. What the footer says
is checked first; then rows are decoded a few at a time, so that the limit is noticed before it is far exceeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_AT_ONCE = 65_536
PLAUSIBLE_BYTES, PLAUSIBLE_RATIO = 256 << 20, 1000
"""More than both, in bytes and in times the bytes in the file, is a bomb."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


class TooLarge(ValueError):
    """What is encoded in a file decodes to more bytes than are allowed."""

    def __init__(self, limit: int, compressed: int) -> None:
        super().__init__(f"its {compressed:,} bytes decode to more than {limit >> 20:,} MB")


def read_row_groups(
    file: pq.ParquetFile, limit: int, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
) -> pa.Table:
    """Some columns of some row groups, by default all, as one table.

    Raises:
        TooLarge: they decode to more than `limit` bytes.
        pa.ArrowException, OSError: they are damaged.
    """
    numbers = range(file.metadata.num_row_groups) if groups is None else groups
    wanted = None if columns is None else list(columns)
    compressed, encoded, least, repeats = _told(file, numbers, wanted)
    limit = min(limit, max(PLAUSIBLE_BYTES, PLAUSIBLE_RATIO * compressed))
    if max(encoded, least) > limit:
        raise TooLarge(limit, compressed)
    if not repeats:
        return file.read_row_groups(list(numbers), columns=wanted)
    # No value has more bytes than all of them encoded.
    rows = min(ROWS_AT_ONCE, max(1, limit // 4 // max(encoded, 1)))
    batches = list(
        _until(TooLarge(limit, compressed), limit, file.iter_batches(rows, row_groups=list(numbers), columns=wanted))
    )
    schema = batches[0].schema if batches else file.read_row_groups([], columns=wanted).schema
    return pa.Table.from_batches(batches, schema)


def _until(error: TooLarge, limit: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > limit:
            raise error
        yield batch


def _told(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None) -> tuple[int, int, int, bool]:
    """By the footer: bytes in the file, of all values encoded, at least when decoded; and whether values may repeat."""
    compressed = encoded = least = 0
    repeats = False
    for number in groups:
        group = file.metadata.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            if columns is not None and chunk.path_in_schema.split(".")[0] not in columns:
                continue
            compressed += chunk.total_compressed_size
            encoded += chunk.total_uncompressed_size
            if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
                least += chunk.num_values * (file.metadata.schema.column(index).length or 1)
            else:
                least += chunk.num_values * _WIDTHS.get(chunk.physical_type, 4)
            repeats |= chunk.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in each for each in chunk.encodings)
    return compressed, encoded, least, repeats
