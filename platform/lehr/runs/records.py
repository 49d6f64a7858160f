"""The record of a run: tables of immutable Parquet parts, and events as JSON lines.

A part never changes once it is visible; `attempts.py` says which parts count.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from lehr.errors import RunError
from lehr.runs.attempts import KINDS, TABLES, Attempt, counted_parts, in_order, newest_attempt
from lehr.runs.storage import Folder, to_json
from lehr.runs.timestamps import now

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_T = TypeVar("_T")


class Recorder:
    """Writes the record of one attempt. Threads may share a recorder, and recorders of one attempt never collide."""

    def __init__(self, folder: Folder, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self._own: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._next = dict.fromkeys(KINDS, 1)
        self._lock = threading.Lock()

    def write_steps(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        """Adds a part to `steps/` and returns its name.

        `columns` have equal length, one entry per step; None means "not measured", NaN and infinities are kept.
        Declared columns that are left out are null; other names are the task's own metrics, float64 of unit 1, or text.
        Before a checkpoint, write all steps that it covers, and no later ones.
        """
        return self._write_table("steps", columns)

    def write_epochs(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        """Adds a part to `epochs/`, as `write_steps` does; one entry per epoch."""
        return self._write_table("epochs", columns)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Records at once that something happened. `message` is a sentence, `fields` hold JSON values."""
        base = {"time": now(), "attempt": self.attempt.number, "kind": kind, "message": message}
        self._add("events", "jsonl", to_json(base | fields | base, indent=None))

    def covered(self) -> dict[str, list[str]]:
        """The parts that count now, inherited and own: the `covered` of a checkpoint's state."""
        with self._lock:
            return {kind: in_order([*self.attempt.inherits.get(kind, ()), *self._own[kind]]) for kind in TABLES}

    def _write_table(self, kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        from lehr.runs.tables import to_parquet

        return self._add(kind, "parquet", to_parquet(kind, columns))

    def _add(self, kind: str, suffix: str, data: bytes) -> str:
        with self._lock:
            while True:
                name = f"part-{self.attempt.number:04d}-{self._next[kind]:06d}.{suffix}"
                self._next[kind] += 1
                if self.folder.create(f"{kind}/{name}", data):
                    self._own[kind].append(name)
                    return name


def read_steps(folder: Folder) -> pa.Table:
    """The steps that count, in order, with every declared column (null where it was not recorded)."""
    return _read_table(folder, "steps")


def read_epochs(folder: Folder) -> pa.Table:
    """The epochs that count, in order, with every declared column (null where it was not recorded)."""
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
    """The table without the columns of wall-clock figures."""
    return table.select([field.name for field in table.schema if (field.metadata or {}).get(b"timing") != b"true"])


def _read_table(folder: Folder, kind: str) -> pa.Table:
    from lehr.runs.tables import from_parquet, joined

    parts = _read_parts(folder, kind, from_parquet)
    try:
        return joined(kind, parts)
    except ValueError as error:
        raise RunError(f"{folder.uri}/{kind}: its parts do not fit together: {error}") from error


def _read_parts(folder: Folder, kind: str, parse: Callable[[bytes], _T]) -> list[_T]:
    """Every part that counts. If a new attempt drops parts meanwhile, those of its own list are read instead."""

    def read(name: str) -> _T:
        data = folder.read(f"{kind}/{name}")
        try:
            return parse(data)
        except (OSError, ValueError) as error:
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
