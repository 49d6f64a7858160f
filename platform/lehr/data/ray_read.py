"""What runs inside Ray Data's read tasks. It imports no torch: that takes longer than decoding a small data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from lehr.data.decode import decode
from lehr.data.labels import to_column
from lehr.data.pixels import PixelFormat
from lehr.data.sources.base import Part, Source


class Parts(Datasource):
    """The parts of a source as Ray Data reads them, each decoded where it is read.

    Args:
        source: the source.
        wanted: what to decode to, as `decode` takes it.
        numbers: read only the parts of these numbers; by default all.
    """

    def __init__(
        self,
        source: Source,
        wanted: PixelFormat,
        numbers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._source, self._wanted = source, wanted
        self._numbers = range(len(source.parts)) if numbers is None else numbers

    def get_name(self) -> str:
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task for each part, whatever `parallelism` asks for. Rows are never limited."""
        return [
            ReadTask(
                partial(_blocks, self._source.parts[number], number, self._wanted),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
            )
            for number in self._numbers
        ]


def _blocks(part: Part, number: int, wanted: PixelFormat) -> list[pa.Table]:
    return [_block(part, number, wanted)]


def _block(part: Part, number: int, wanted: PixelFormat) -> pa.Table:
    """A table of one row with the decoded arrays as raw bytes, so that nothing is copied image by image."""
    decoded = decode(part.read(), wanted)
    return pa.table(
        {
            "part": [number],
            "shape": [list(decoded.pixels.shape)],
            "pixels": _one_value(decoded.pixels),
            "labels": _one_list(to_column(decoded.labels)),
            "unreadable": pa.array([[row for row, _ in decoded.unreadable]], pa.list_(pa.int64())),
            "why": pa.array([[why for _, why in decoded.unreadable]], pa.list_(pa.string())),
        }
    )


def _one_list(column: pa.Array[Any]) -> pa.Array[Any]:
    """A column as one row of lists, not copied."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(column)], pa.int64()), column)


def _one_value(array: np.ndarray) -> pa.Array:
    """A binary column of one row that is the array's memory, not copied."""
    offsets = pa.py_buffer(np.array([0, array.nbytes], np.int64).data)
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(np.ascontiguousarray(array).data)])
