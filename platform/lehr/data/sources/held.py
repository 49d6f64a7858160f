"""Rows that are held in memory: what a function returned, or a table of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lehr.data.sources.tabular import some

ROWS = 512
"""In a part: few enough to be sent to the process that decodes them."""


@dataclass(frozen=True)
class HeldChunk:
    """Some rows of a table.

    Attributes:
        table: these rows, with nothing of the others behind them.
        of: what they are rows of, in words.
        numbers: the number of each row there.
    """

    table: pa.Table
    of: str
    numbers: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.table)

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        return some(self.table.select(names), rows)

    def name(self, row: int) -> str:
        return f"{self.of} row {self.numbers[row] + 1}"


def held_chunks(table: pa.Table, of: str, numbers: Sequence[int] | np.ndarray | None = None) -> list[HeldChunk]:
    """The rows of a table, in parts."""
    known = range(len(table)) if numbers is None else [int(each) for each in numbers]
    return [
        HeldChunk(_alone(table.slice(start, ROWS)), of, tuple(known[start : start + ROWS]))
        for start in range(0, len(table), ROWS)
    ]


def _alone(table: pa.Table) -> pa.Table:
    """A copy, so that what is sent to another process is these rows only."""
    return table.take(pa.array(range(len(table)), pa.int64())).combine_chunks()
