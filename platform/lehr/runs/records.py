"""The record of a run: tables of immutable Parquet parts, and events as JSON lines.

A part is never changed after it appeared; which parts count is the attempts' business (`attempts.py`).
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.errors import RunError

from .attempts import KINDS, TABLES, Attempt, counted_parts, in_order, newest_attempt
from .clock import now
from .storage import Folder, to_json

_T = TypeVar("_T")


@dataclass(frozen=True)
class Column:
    """What a column holds. `timing` marks wall-clock figures, which no two runs share."""

    unit: str
    description: str
    timing: bool = False
    type: str = "float64"


COLUMNS: dict[str, dict[str, Column]] = {
    "steps": {
        "step": Column("step", "number of the optimizer step, from 0", type="int64"),
        "epoch": Column("epoch", "epochs of training data seen before the step, with fraction"),
        "loss": Column("1", "training loss of the global batch, before the update"),
        "learning_rate": Column("1", "learning rate of the update, of the first parameter group"),
        "gradient_norm": Column("1", "Euclidean norm of the gradient of all parameters, before clipping"),
        "update_ratio": Column("1", "norm of the update over the norm of the weights; null: not measured"),
        "examples": Column("example", "training examples in the global batch", type="int64"),
        "seconds": Column("s", "wall-clock time of the step, input included", timing=True),
        "input_seconds": Column("s", "wall-clock time the step waited for its batch", timing=True),
    },
    "epochs": {
        "epoch": Column("epoch", "completed epochs, so the first is 1", type="int64"),
        "step": Column("step", "optimizer steps taken by the end of the epoch", type="int64"),
        "train_loss": Column("1", "mean training loss over the epoch, while the weights moved"),
        "train_accuracy": Column("1", "training accuracy over the epoch, while the weights moved, 0 to 1"),
        "clean_train_loss": Column("1", "loss on a fixed clean training subset, evaluation mode"),
        "clean_train_accuracy": Column("1", "accuracy on a fixed clean training subset, evaluation mode, 0 to 1"),
        "validation_loss": Column("1", "loss on the whole validation split"),
        "validation_accuracy": Column("1", "accuracy on the whole validation split, 0 to 1"),
        "averaged_validation_loss": Column("1", "the same with the averaged weights"),
        "averaged_validation_accuracy": Column("1", "the same with the averaged weights, 0 to 1"),
        "test_loss": Column("1", "loss on the whole test split; only at the end"),
        "test_accuracy": Column("1", "accuracy on the whole test split, 0 to 1; only at the end"),
        "learning_rate": Column("1", "learning rate of the epoch's last update"),
        "seconds": Column("s", "wall-clock time of the epoch, evaluation included", timing=True),
        "examples_per_second": Column("example/s", "training examples over training time", timing=True),
    },
}


class Recorder:
    """Writes the record of one attempt. Safe from several threads; several recorders of one attempt never collide."""

    def __init__(self, folder: Folder, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self._own: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._next = dict.fromkeys(KINDS, 1)
        self._lock = threading.Lock()

    def write_steps(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        """Add a part to `steps/` and return its name.

        `columns` are of equal length, one entry per step; None is "not measured", NaN and infinities stay what they
        are. Declared columns left out are null; other names are metrics of the task's own, float64 of unit 1 (or text).
        Before a checkpoint, write all steps that it covers, and no later ones.
        """
        return self._write_table("steps", columns)

    def write_epochs(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        """Add a part to `epochs/`; as `write_steps`, one entry per epoch."""
        return self._write_table("epochs", columns)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Write at once that something happened. `message` is a sentence for people, `fields` hold JSON values."""
        base = {"time": now(), "attempt": self.attempt.number, "kind": kind, "message": message}
        self._add("events", "jsonl", to_json(base | fields | base, indent=None))

    def covered(self) -> dict[str, list[str]]:
        """The parts that count now, inherited and own: what a checkpoint's state keeps under "covered"."""
        with self._lock:
            return {kind: in_order([*self.attempt.inherits.get(kind, ()), *self._own[kind]]) for kind in TABLES}

    def _write_table(self, kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        buffer = io.BytesIO()
        pq.write_table(_table(kind, columns), buffer)
        return self._add(kind, "parquet", buffer.getvalue())

    def _add(self, kind: str, suffix: str, data: bytes) -> str:
        with self._lock:
            while True:
                name = f"part-{self.attempt.number:04d}-{self._next[kind]:06d}.{suffix}"
                self._next[kind] += 1
                if self.folder.create(f"{kind}/{name}", data):
                    self._own[kind].append(name)
                    return name


def read_steps(folder: Folder) -> pa.Table:
    """The steps that count, in order, with every declared column (nulls where it was not recorded)."""
    return _read_table(folder, "steps")


def read_epochs(folder: Folder) -> pa.Table:
    """The epochs that count, in order, with every declared column (nulls where it was not recorded)."""
    return _read_table(folder, "epochs")


def read_events(folder: Folder) -> list[dict[str, Any]]:
    """The events that count, in order: each has "time" (UTC, ISO 8601), "attempt", "kind" and "message"."""
    parts = _read_parts(folder, "events", _parse_events)
    return [event for part in parts for event in part]


def _parse_events(data: bytes) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in data.splitlines()]
    for event in events:
        if not isinstance(event, dict) or not all(isinstance(event.get(k), str) for k in ("time", "kind", "message")):
            raise ValueError("an event lacks its time, kind or message")
    return events


def without_timing(table: pa.Table) -> pa.Table:
    """The table without the columns that hold wall-clock time."""
    return table.select([field.name for field in table.schema if (field.metadata or {}).get(b"timing") != b"true"])


def _table(kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pa.Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise RunError(f"{kind}: columns must be of one length; got {lengths or 'no columns'}")
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
        if column or array.null_count < rows:  # all null, a column of the task's own has no type yet
            arrays.append(array)
            fields.append(_field(name, array.type, column or Column("1", "metric of the task")))
    return pa.table(arrays, schema=pa.schema(fields))


def _array(values: Sequence[Any] | np.ndarray, column: Column | None) -> pa.Array:
    plain = values if isinstance(values, np.ndarray) else [v.item() if hasattr(v, "item") else v for v in values]
    if column is None and any(isinstance(value, str) for value in plain):
        return pa.array(plain, type=pa.string())
    array = pa.array(plain, type=pa.float64(), from_pandas=False)  # NaN is a value, not a null
    return array.cast(column.type) if column else array  # refuses fractions in a column of whole numbers


def _field(name: str, type_: pa.DataType, column: Column) -> pa.Field:
    timing = "true" if column.timing else "false"
    return pa.field(name, type_, metadata={"unit": column.unit, "description": column.description, "timing": timing})


def _empty(kind: str) -> pa.Table:
    return pa.schema([_field(name, pa.type_for_alias(c.type), c) for name, c in COLUMNS[kind].items()]).empty_table()


def _read_table(folder: Folder, kind: str) -> pa.Table:
    parts = _read_parts(folder, kind, lambda data: pq.ParquetFile(pa.BufferReader(data)).read())
    try:
        return pa.concat_tables([_empty(kind), *parts], promote_options="default")
    except pa.ArrowException as error:
        raise RunError(f"{folder.uri}/{kind}: its parts do not fit together: {error}") from error


def _read_parts(folder: Folder, kind: str, parse: Callable[[bytes], _T]) -> list[_T]:
    """Every counted part. A new attempt may drop parts while we read: then its list is read instead."""

    def read(name: str) -> _T:
        data = folder.read(f"{kind}/{name}")
        try:
            return parse(data)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RunError(f"{folder.uri}/{kind}/{name}: is damaged: {error}") from error

    attempt = newest_attempt(folder)
    while attempt is not None:
        try:
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(read, counted_parts(folder, kind, attempt)))
        except FileNotFoundError as error:
            newer = newest_attempt(folder)
            if newer is None or newer.number == attempt.number:
                raise RunError(f"{folder.uri}/{kind}: a part of the record is missing: {error}") from error
            attempt = newer
    return []
