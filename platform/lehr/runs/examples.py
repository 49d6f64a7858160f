"""`examples.parquet`: what the model of a training of numbers, or of several classes a row, says of validation rows."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.errors import RunError, StorageError
from lehr.runs.storage import Folder
from lehr.runs.tables import MOST_BYTES, from_parquet

NAME = "examples.parquet"
_CELLS = 200_000
"""Of a table that is read back, at most: a run may be of somebody else."""


@dataclass(frozen=True)
class Example:
    """One validation row with its picture.

    Attributes:
        row: its id. error: how wrong the prediction is, 0 if it is right.
        caption: the prediction beside the truth, in a few lines.
        picture: a PNG file.
    """

    row: int
    error: float
    caption: tuple[str, ...]
    picture: bytes


@dataclass(frozen=True)
class Examples:
    """Predictions for validation rows.

    Attributes:
        names: of the classes or numbers.
        values, labels: what was predicted and what is true, as the task has it: [rows, names]; where rows have
            different lengths, of each row all its numbers.
        head, lines: a table with a line for each name, as the task makes it.
        shown: some rows with pictures: the worst first, then some by chance.
        legend: what is drawn into the pictures; empty for nothing.
        panels: further pictures, each with kind, title and content (`lehr.tasks.base.Panel`).
    """

    names: tuple[str, ...]
    values: Sequence[np.ndarray] | np.ndarray
    labels: Sequence[np.ndarray] | np.ndarray
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    shown: tuple[Example, ...]
    legend: str = ""
    panels: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, folder: Folder) -> Examples | None:
        """Those of the run in `folder`; None where there are none, or they are damaged."""
        try:
            table = from_parquet(folder.read(NAME, MOST_BYTES))
            about = json.loads((table.schema.metadata or {})[b"about"])
            names, head = (tuple(map(str, about[name])) for name in ("names", "head"))
            legend = str(about.get("legend", ""))
            panels = tuple(each for each in about.get("panels", ()) if isinstance(each, dict))
            lines = tuple(tuple(map(str, line)) for line in about["lines"])
            values, labels = (_rows(table[name]) for name in ("value", "label"))
            pictured = [row for row in table.to_pylist() if isinstance(row["picture"], bytes)]
            shown = [Example(int(r["row"]), float(r["error"]), tuple(r["caption"]), r["picture"]) for r in pictured]
        except (FileNotFoundError, RunError, StorageError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None
        if len(head) * len(lines) > _CELLS or any(len(line) != len(head) for line in lines):
            return None
        shown.sort(key=lambda each: -each.error)
        return cls(names, values, labels, head, lines, tuple(shown), legend, panels)

    def write(self, folder: Folder, rows: np.ndarray, errors: np.ndarray) -> None:
        """Replaces examples.parquet.

        Args:
            rows: int64 [rows], the ids. errors: float64 [rows].
        """
        by_row = {each.row: each for each in self.shown}
        pictured = [by_row.get(int(row)) for row in rows]
        table = pa.table(
            {
                "row": pa.array(rows.astype(np.int64)),
                "label": _lists(self.labels),
                "value": _lists(self.values),
                "error": pa.array(errors.astype(np.float64)),
                "caption": pa.array([each and list(each.caption) for each in pictured], pa.list_(pa.string())),
                "picture": pa.array([each and each.picture for each in pictured], pa.binary()),
            }
        )
        about: dict[str, Any] = {"names": self.names, "head": self.head, "lines": self.lines, "legend": self.legend}
        about |= {"panels": self.panels} if self.panels else {}
        buffer = io.BytesIO()
        named = table.replace_schema_metadata({"about": json.dumps(about)})
        pq.write_table(named, buffer, write_page_checksum=True)
        folder.write(NAME, buffer.getvalue())


def _lists(rows: Sequence[np.ndarray] | np.ndarray) -> pa.Array[Any]:
    """A column of lists: all numbers of each row."""
    return pa.array([np.asarray(row, np.float64).ravel().tolist() for row in rows], pa.list_(pa.float64()))


def _rows(column: pa.ChunkedArray[Any]) -> list[np.ndarray] | np.ndarray:
    """The lists of a column; one array where all are of the same length."""
    rows = [np.asarray(each or (), np.float64) for each in column.to_pylist()]
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else rows
