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
from lehr.runs.attempts import KINDS, TABLES, Attempt, Part, all_attempts, newest_attempt, part_name, parts_of
from lehr.runs.storage import Folder, to_json
from lehr.runs.timestamps import now

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MOST_PART_BYTES = 256 << 20

_T = TypeVar("_T")


MERGE = 64
"""So many small parts of a table are merged into one, so that a long training leaves few files."""


class Recorder:
    """Writes the record of one attempt. Threads may share a recorder, and recorders of one attempt never collide.

    Every method raises `Superseded` once a newer attempt has begun.
    """

    def __init__(self, folder: Folder, attempt: Attempt, merge: int = MERGE) -> None:
        """`merge`: so many small parts of a table become one."""
        self.folder, self.attempt, self._count = folder, attempt, merge
        self._last = dict.fromkeys(KINDS, 0)
        self._small: dict[str, list[tuple[int, bytes]]] = {kind: [] for kind in TABLES}
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
        with self._lock:
            self._add("events", "jsonl", to_json(base | fields | base, indent=None))

    def covered(self) -> dict[str, dict[str, int]]:
        """The parts that count now, inherited and own: the `covered` of a checkpoint's state."""
        with self._lock:
            own = {kind: {str(self.attempt.number): self._last[kind]} if self._last[kind] else {} for kind in TABLES}
            return {kind: {**self.attempt.inherits.get(kind, {}), **own[kind]} for kind in TABLES}

    def _write_table(self, kind: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
        from lehr.runs.tables import to_parquet

        data = to_parquet(kind, columns)
        with self._lock:
            name = self._add(kind, "parquet", data)
            self._small[kind].append((self._last[kind], data))
            if len(self._small[kind]) == self._count:
                self._merge(kind)
            return name

    def _add(self, kind: str, suffix: str, data: bytes) -> str:
        self.attempt.check(self.folder)
        while True:
            self._last[kind] += 1
            name = part_name(self.attempt.number, self._last[kind], self._last[kind], suffix)
            if self.folder.create(f"{kind}/{name}", data):
                return name

    def _merge(self, kind: str) -> None:
        """Replaces the newest small parts by one. Readers that see both take the large one."""
        from lehr.runs.tables import merged

        small, self._small[kind] = self._small[kind], []
        numbers = [number for number, _ in small]
        if numbers[-1] - numbers[0] + 1 != len(numbers):
            return  # another recorder of this attempt wrote in between
        name = part_name(self.attempt.number, numbers[0], numbers[-1], "parquet")
        try:
            large = merged(kind, [data for _, data in small])
        except ValueError:
            return  # a reader will say which parts do not fit together
        if self.folder.create(f"{kind}/{name}", large):
            for number in numbers:
                self.folder.delete(f"{kind}/{part_name(self.attempt.number, number, number, 'parquet')}")


def read_steps(folder: Folder) -> pa.Table:
    """The steps that count, in order, with every declared column (null where it was not recorded)."""
    return _read_table(folder, "steps")


def read_epochs(folder: Folder) -> pa.Table:
    """The epochs that count, in order, with every declared column (null where it was not recorded)."""
    return _read_table(folder, "epochs")


def read_events(folder: Folder) -> list[dict[str, Any]]:
    """The events that count, in order: each has "time" (UTC, ISO 8601), "attempt", "kind" and "message"."""
    return [event for _, events in _read_parts(folder, "events", _parse_events) for event in events]


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
        return joined(kind, _rows_that_count(folder, kind, parts))
    except ValueError as error:
        raise RunError(f"{folder.uri}/{kind}: its parts do not fit together: {error}") from error


def _rows_that_count(folder: Folder, kind: str, parts: Sequence[tuple[Part, pa.Table]]) -> list[pa.Table]:
    """The tables without the rows from which on a later attempt started again.

    An attempt whose start is not known started with the first step that it recorded.
    """
    from lehr.runs.tables import before, first_step

    begins = {attempt.number: None if attempt.open else attempt.step for attempt in all_attempts(folder)}
    by_attempt: dict[int, list[pa.Table]] = {}
    for part, table in parts:
        by_attempt.setdefault(part.attempt, []).append(table)
    kept: list[pa.Table] = []
    limit: int | None = None
    for number in sorted({*begins, *by_attempt}, reverse=True):
        tables = by_attempt.get(number, [])
        kept = [table if limit is None else before(kind, table, limit) for table in tables] + kept
        begin = begins.get(number)
        if begin is None and (first := first_step(tables)) is not None:
            begin = first if kind == "steps" else first - 1
        if begin is not None:
            limit = begin if limit is None else min(limit, begin)
    return kept


def _read_parts(folder: Folder, kind: str, parse: Callable[[bytes], _T]) -> list[tuple[Part, _T]]:
    """Every part that may count. If parts are dropped or merged meanwhile, looks again."""

    def read(part: Part) -> tuple[Part, _T]:
        data = folder.read(f"{kind}/{part.name}", MOST_PART_BYTES)
        try:
            return part, parse(data)
        except (OSError, ValueError) as error:
            if kind == "events":  # only for people: the others can still be read
                what = f"{part.name} is damaged: {error}"
                return part, parse(
                    to_json({"time": "", "attempt": part.attempt, "kind": "damaged", "message": what}, None)
                )
            raise RunError(f"{folder.uri}/{kind}/{part.name}: is damaged: {error}") from error

    before: list[Part] | None = None
    while True:
        there = parts_of(folder, kind)
        newest = newest_attempt(folder, {part.attempt for part in there})
        parts = [part for part in there if newest is None or _may_count(part, kind, newest)]
        try:
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(read, parts))
        except FileNotFoundError as error:
            if parts == before:
                raise RunError(f"{folder.uri}/{kind}: a part of the record is missing: {error}") from error
            before = parts


def _may_count(part: Part, kind: str, newest: Attempt) -> bool:
    """Whether the newest attempt wrote or inherits the part."""
    if newest.open or part.attempt >= newest.number:
        return True
    return part.first <= newest.inherits.get(kind, {}).get(str(part.attempt), 0)
