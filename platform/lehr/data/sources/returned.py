"""What a function returned, as a source: a torch Dataset, one of Hugging Face, a list of dicts, arrays, a data frame.

What is indexed (`__getitem__` and `__len__`) is read where it is needed: the function is called once in each process
that decodes, and its rows are asked for by number. So it must return the same rows each time; the label of each row is
compared when it is read. What can only be iterated is read once, into memory or, if it is more than that should hold,
into files (`written.py`). Splits are a dict: `{"train": …, "test": …}`.

This module imports no library that it reads from; Ray Datasets are read in `lehr.data.ray_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lehr.data.sources.base import ErrorFactory, Source
from lehr.data.sources.held import ROWS, held_chunks
from lehr.data.sources.image_columns import COLUMNS, USUAL_IMAGES, as_picture, of_arrays
from lehr.data.sources.splits import split_of
from lehr.data.sources.tabular import Wanted, in_splits, table_source
from lehr.data.sources.written import FILE_BYTES, GROUP_ROWS, Writing, most_held, write_file
from lehr.errors import LehrError
from lehr.own_code import calling

IMAGE, LABEL = "image", "label"


class Odd(ValueError):
    """Rows that are no images with labels; says what they are, and what is allowed."""


@dataclass(frozen=True)
class Called:
    """A function and what it is called with: what returns the same rows in every process."""

    function: Callable[..., Any]
    name: str
    arguments: tuple[Any, ...] = ()
    split: str = ""

    def rows(self) -> Any:
        """What it returns, or one split of that; called once in each process."""
        key = (self.name, self.arguments, self.split)
        if key not in _RETURNED:
            found = self.function(*self.arguments)
            _RETURNED[key] = found[self.split] if self.split else found
        return _RETURNED[key]

    def keep(self, rows: Any) -> None:
        """What it returned just now, so that this process need not call it again."""
        _RETURNED[self.name, self.arguments, self.split] = rows


_RETURNED: dict[tuple[Any, ...], Any] = {}


def returned_source(returned: Any, called: Called, wanted: Wanted, job_error: ErrorFactory) -> Source:
    """The source of what a function returned. Raises JobError for what has no images with labels."""
    name = called.name
    splits = _by_split(returned)
    try:
        sources = {
            split: _source(rows, Called(called.function, name, called.arguments, key), wanted, job_error)
            for split, (key, rows) in splits.items()
        }
    except Odd as error:
        raise job_error("data.source", f"{name} returned {error}") from None
    if "train" not in sources:
        what = f"{name} returned a dict of {', '.join(map(str, returned))}; allowed: one of them called train"
        raise job_error("data.source", what)
    return in_splits(name, sources, ())


def _by_split(returned: Any) -> dict[str, tuple[str, Any]]:
    """By split, what it is called and its rows; all are for training where there are no splits."""
    if isinstance(returned, Mapping) and returned and all(isinstance(key, str) for key in returned):
        named = {split: (key, rows) for key, rows in returned.items() if (split := split_of(key))}
        if named:
            return named
    return {"train": ("", returned)}


def _source(rows: Any, called: Called, wanted: Wanted, job_error: ErrorFactory) -> Source:
    table, form = _as_table(rows, called.name)
    if table is not None:
        schema = table.schema
        ready = {"shape", "dtype"} <= set(schema.names)
        for hidden in COLUMNS[1:] if ready else ():
            schema = schema.remove(schema.get_field_index(hidden))
        chunks: Sequence[Any] = (
            table.writing.chunks() if isinstance(table, _Written) else held_chunks(table, called.name)
        )
        usual = Wanted(wanted.kind, wanted.columns) if ready else wanted
        source = table_source(chunks, schema, called.name, "data.source", job_error, usual, form, ready=ready)
        return replace(source, notes=(*source.notes, table.writing.told())) if isinstance(table, _Written) else source
    called.keep(rows)
    if _is_hugging_face(rows):
        schema = rows.features.arrow_schema
        parts = [HubChunk(called, start, min(ROWS, len(rows) - start)) for start in range(0, len(rows), ROWS)]
        return table_source(parts, schema, called.name, "data.source", job_error, wanted, "a Dataset of Hugging Face")
    labels = _labels(rows, called.name)
    schema = pa.schema([pa.field(IMAGE, pa.large_binary()), pa.field(LABEL, labels.type)])
    indexed = [IndexedChunk(called, start, labels.slice(start, ROWS)) for start in range(0, len(labels), ROWS)]
    form = f"a {type(rows).__name__} of {type(rows).__module__.partition('.')[0]}"
    usual = Wanted(wanted.kind, wanted.columns)
    return table_source(indexed, schema, called.name, "data.source", job_error, usual, form, ready=True)


# ── held in memory ──────────────────────────────────────────────────────────────────────────────────────────────────


def _as_table(rows: Any, name: str) -> tuple[pa.Table | _Written | None, str]:
    """The rows as a table, or as files, and what they are; None for what is indexed where it is needed."""
    if isinstance(rows, pa.Table):
        return rows, "an Arrow table"
    if _is_hugging_face(rows):
        return None, ""
    if hasattr(rows, "to_arrow") and hasattr(rows, "columns"):  # polars
        return rows.to_arrow(), "a data frame"
    if hasattr(rows, "columns") and hasattr(rows, "itertuples"):  # pandas
        return pa.Table.from_pandas(rows, preserve_index=False), "a data frame"
    if isinstance(rows, (tuple, list)) and len(rows) == 2 and all(hasattr(each, "__array__") for each in rows):
        images, labels = (np.asarray(each) for each in rows)
        if len(images) != len(labels):
            raise Odd(f"{len(images):,} images and {len(labels):,} labels; allowed: as many")
        return _table(zip(images, labels, strict=True), name), "a pair of arrays"
    if isinstance(rows, list):
        return _table(iter(rows), name), "a list"
    if hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        return None, ""
    if isinstance(rows, Iterable) and not isinstance(rows, (str, bytes, Mapping)):
        return _table(iter(rows), name), f"{type(rows).__name__}, read once"
    raise Odd(
        f"a {type(rows).__name__}; allowed: a torch Dataset, a datasets.Dataset, a ray.data.Dataset, a list of "
        '{"image": …, "label": …}, a pair of arrays, or a dict of these by split'
    )


@dataclass(frozen=True)
class _Written:
    """Rows that were written to files, and their columns."""

    writing: Writing
    schema: pa.Schema


def _table(rows: Iterator[Any], name: str) -> pa.Table | _Written:
    """Rows that are taken one after the other, encoded, with every column that a dict has besides the image: a table;
    files, if they are more than memory should hold."""
    taken, most = _Taken(), most_held()
    for number, row in enumerate(rows):
        taken.add(*_split_row(row, number))
        if taken.size > most:
            return _written(taken, ((at, row) for at, row in enumerate(rows, number + 1)), name)
    if not taken.images:
        raise Odd("no rows")
    return taken.table()


class _Taken:
    """Rows that were taken and are held."""

    def __init__(self) -> None:
        self.images, self.others, self.size = list[bytes | np.ndarray | None](), list[dict[str, Any]](), 0

    def add(self, image: bytes | np.ndarray | None, others: dict[str, Any]) -> None:
        self.images.append(image)
        self.others.append(others)
        self.size += 0 if image is None else len(image) if isinstance(image, bytes) else image.nbytes

    def table(self, first: int = 0, last: int | None = None) -> pa.Table:
        """Some of them as a table with all columns that any of these has."""
        others = self.others[first:last]
        names = dict.fromkeys(name for each in others for name in each if name not in COLUMNS)
        columns = {name: _column([each.get(name) for each in others]) for name in names}
        return pa.table({**columns, **_encoded(self.images[first:last])})


def _written(taken: _Taken, rows: Iterator[tuple[int, Any]], name: str) -> _Written:
    """What was taken until now, and all that follows, as files with the columns of the first."""
    writing, schema = Writing(name, f"{name} row {{}}", first=1), pa.schema([])
    step = max(1, min(len(taken.images), FILE_BYTES * len(taken.images) // max(1, taken.size)))
    while True:
        for start in range(0, len(taken.images), step):
            table = taken.table(start, start + step)
            schema = schema if len(schema) else table.schema
            writing.add(write_file(_as(table, schema), writing.next_path()))
        taken = _Taken()
        for number, row in rows:
            taken.add(*_split_row(row, number))
            if taken.size >= FILE_BYTES and len(taken.images) >= GROUP_ROWS:
                break
        if not taken.images:
            return _Written(writing, schema)
        step = len(taken.images)


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of the first rows. Raises Odd where later ones have others."""
    if new := [name for name in table.schema.names if name not in schema.names]:
        raise Odd(f"rows with {', '.join(new)}, which the first rows do not have; allowed: the same in all")
    missing = [each for each in schema if each.name not in table.schema.names]
    for each in missing:
        table = table.append_column(each, pa.nulls(len(table), each.type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise Odd(f"labels of several types: {str(error).splitlines()[0]}") from None


def _column(values: list[Any]) -> pa.Array[Any]:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise Odd(f"labels of several types: {str(error).splitlines()[0]}") from None


# ── indexed where it is needed ──────────────────────────────────────────────────────────────────────────────────────


def _is_hugging_face(rows: Any) -> bool:
    return all(hasattr(rows, name) for name in ("with_format", "select_columns", "features", "__len__"))


@dataclass(frozen=True)
class HubChunk:
    """Rows of a `datasets.Dataset` that a function returns, by number: as they are stored, without decoding."""

    called: Called
    first: int
    rows: int

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        chosen = [self.first + row for row in (range(self.rows) if rows is None else rows)]
        with calling(self.called.name):
            found: pa.Table = self.called.rows().select_columns(names).with_format("arrow")[chosen]
        return found

    def name(self, row: int) -> str:
        return f"{self.called.name} row {self.first + row}"


@dataclass(frozen=True)
class IndexedChunk:
    """Rows of what a function returns, by number.

    Attributes:
        first: the number of the first.
        labels: of these rows, as they were when the data set was opened.
    """

    called: Called
    first: int
    labels: pa.Array[Any]

    @property
    def rows(self) -> int:
        return len(self.labels)

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        chosen = range(self.rows) if rows is None else rows
        images = self._images(chosen) if set(names) & set(COLUMNS) else {}
        labels = self.labels.take(pa.array(chosen, pa.int64()))
        return pa.table({name: images.get(name, labels) for name in names})

    def _images(self, chosen: Sequence[int]) -> dict[str, pa.Array[Any]]:
        rows, found = self.called.rows(), []
        for number in chosen:
            image, rest = _row(rows, self.first + number, self.called.name)
            said = self.labels[number].as_py()
            if _plain(rest.get(LABEL)) != said:
                raise LehrError(
                    f"data: {self.name(number)} had the label {said} when the job started, and now has "
                    f"{rest.get(LABEL)}; allowed: a function that returns the same rows each time"
                )
            found.append(image)
        return _encoded(found)

    def name(self, row: int) -> str:
        return f"{self.called.name} row {self.first + row}"


def _encoded(images: Sequence[bytes | np.ndarray | None]) -> dict[str, pa.Array[Any]]:
    """Files and pixels as the columns of a part's table."""
    found = of_arrays([None if isinstance(each, bytes) else each for each in images])
    if any(isinstance(each, bytes) for each in images):
        pixels = found["image"].to_pylist()
        mixed = [each if isinstance(each, bytes) else row for each, row in zip(images, pixels, strict=True)]
        found["image"] = pa.array(mixed, pa.large_binary())
    return found


def _labels(rows: Any, name: str) -> pa.Array[Any]:
    """The label of every row. `targets`, as data sets of torchvision have them, are taken if the first and the last row
    agree; else every row is read."""
    count = len(rows)
    if not count:
        raise Odd("no rows")
    targets = getattr(rows, "targets", None)
    if targets is not None and len(targets) == count:
        known = [_plain(each) for each in targets]
        if all(_plain(_row(rows, at, name)[1].get(LABEL)) == known[at] for at in (0, count - 1)):
            return _column(known)
    return _column([_plain(_row(rows, row, name)[1].get(LABEL)) for row in range(count)])


def _plain(label: Any) -> Any:
    """A label as Python has it: a tensor or array of one number is that number, others are lists."""
    if hasattr(label, "tolist"):
        return label.tolist()
    return list(label) if isinstance(label, tuple) else label


# ── one row ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(rows: Any, number: int, name: str) -> tuple[bytes | np.ndarray | None, dict[str, Any]]:
    """One row by its number, as `_split_row` has it."""
    with calling(name, row=number):
        found = rows[number]
    return _split_row(found, number)


def _split_row(row: Any, number: int) -> tuple[bytes | np.ndarray | None, dict[str, Any]]:
    """A row's image, as a file or as pixels [height, width, channels], and its other values by name."""
    if isinstance(row, Mapping):
        name = next((each for each in USUAL_IMAGES if each in row), None)
        if name is None:
            raise Odd(f"rows with {', '.join(map(str, row))}, and none is called image (row {number})")
        return _image(row[name], number), {str(k): _plain(v) for k, v in row.items() if k != name}
    if isinstance(row, (tuple, list)) and len(row) >= 2:
        return _image(row[0], number), {LABEL: _plain(row[1])}
    what = f"rows such as a {type(row).__name__} (row {number})"
    raise Odd(f'{what}; allowed: (image, label), or {{"image": …, "label": …}}')


def _image(image: Any, number: int) -> bytes | np.ndarray | None:
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, Mapping) and "bytes" in image:
        found: bytes | None = image["bytes"]
        return found
    try:
        if hasattr(image, "mode") and hasattr(image, "getbands"):  # a PIL image
            image = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
            array = np.asarray(image)
            return array[:, :, None] if array.ndim == 2 else array
        if hasattr(image, "__array__") or isinstance(image, list):
            return as_picture(np.asarray(image))
    except (TypeError, ValueError) as error:
        raise Odd(f"an image in row {number} that cannot be read: {error}") from None
    raise Odd(f"a {type(image).__name__} as the image of row {number}; allowed: a PIL image, an array, a tensor, bytes")
