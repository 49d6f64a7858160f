"""The labels of rows as arrays: what a source gives, what lies in shared memory, and what goes between processes.

| labels | array | column of a part's table |
|---|---|---|
| one class | int64 [rows] | int64 |
| several classes, or numbers | int8 or float64 [rows, names] | fixed-size lists |
| as many as there are in each image: boxes, the bytes of captions | `Ragged` | lists |
| a class for each pixel | uint8 [rows, height, width] | lists of lists of a fixed size |
| the same, of images of different sizes | objects [rows], each uint8 [height, width] | structs |
| the same, before the images are read | `Unread` | |

It imports no torch: sources and the processes that only decode need these. `lehr.data.targets` has their counterpart in
batches. Indexing by rows (`labels[ids]`, `labels[3:9]`) and `len` mean the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from lehr.tasks.forms import UNREAD_PIXEL, UNREADABLE

NO_LABEL = -1
"""The label of a row that has none; NaN among numbers."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is `values[starts[i] : starts[i + 1]]`.

    Attributes:
        values: [total, …], those of all rows, one after the other.
        starts: int64 [rows + 1].
        known: bool [rows]; false for a streamed row whose image could not be read.
    """

    values: np.ndarray
    starts: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> Ragged:
        """From the lengths of the rows. Raises ValueError where they do not add up to the values."""
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        if starts[-1] != len(values):
            raise ValueError(f"rows of {starts[-1]} values in all, and there are {len(values)}")
        return cls(values, starts, np.ones(len(lengths), bool))

    def __len__(self) -> int:
        return len(self.known)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.starts)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.starts.nbytes + self.known.nbytes

    def row(self, number: int) -> np.ndarray:
        """The values of one row."""
        return self.values[self.starts[number] : self.starts[number + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The values of each row."""
        return (self.row(number) for number in range(len(self)))

    def __getitem__(self, rows: slice | np.ndarray) -> Ragged:
        """Some rows, in this order, as a copy."""
        chosen = np.arange(len(self))[rows]
        lengths = self.lengths[chosen]
        ends = np.cumsum(lengths)
        places = np.repeat(self.starts[chosen] - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
        found = Ragged.of(self.values[places], lengths)
        return Ragged(found.values, found.starts, self.known[chosen])


@dataclass(frozen=True)
class Unread:
    """Masks that are read with their images: how many there are, and of which height and width.

    Whoever chooses rows of them gets `Unread` again; `blank` makes the array that they are read into.
    """

    rows: int
    size: tuple[int, int]
    ndim = 3

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: slice | np.ndarray) -> Unread:
        return Unread(len(np.broadcast_to(0, self.rows)[rows]), self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        return 0

    def blank(self) -> np.ndarray:
        """uint8 [rows, height, width], of which no pixel counts."""
        return np.full((self.rows, *self.size), UNREAD_PIXEL, np.uint8)


Labels: TypeAlias = Any
"""An array or a `Ragged`: whoever only chooses rows, counts them or passes them on need not know which."""


def concatenate(parts: Sequence[Labels]) -> Labels:
    """The rows of several, one after the other; no rows of a class where there are none."""
    if not parts:
        return np.empty(0, np.int64)
    if isinstance(parts[0], Unread):
        return Unread(sum(map(len, parts)), parts[0].size)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    several = [part for part in parts if isinstance(part, Ragged)]
    joined = Ragged.of(
        np.concatenate([part.values for part in several]), np.concatenate([part.lengths for part in several])
    )
    return Ragged(joined.values, joined.starts, np.concatenate([part.known for part in several]))


def row_of(labels: Labels, number: int) -> np.ndarray:
    """The label of one row; of rows of different lengths its values."""
    return labels.row(number) if isinstance(labels, Ragged) else labels[number]


def mark_unreadable(labels: Labels, rows: np.ndarray) -> None:
    """Notes, in place, that the images of these rows could not be read."""
    if isinstance(labels, Ragged):
        labels.known[rows] = False
    elif is_masks(labels):
        labels[rows] = UNREAD_PIXEL
    else:
        labels[rows] = np.nan if labels.dtype.kind == "f" else UNREADABLE


def is_masks(labels: Labels) -> bool:
    """Whether labels, in memory or not yet read, are a class for each pixel."""
    return isinstance(labels, Unread) or (
        isinstance(labels, np.ndarray) and (labels.dtype == object or (labels.dtype == np.uint8 and labels.ndim == 3))
    )


def without_label(labels: Labels) -> np.ndarray:
    """bool [rows]: which rows have no label at all. Those with boxes always have one: it may be empty."""
    if isinstance(labels, np.ndarray) and labels.dtype == object:
        return np.array([not each.size for each in labels], bool)
    if isinstance(labels, Ragged) and labels.values.ndim == 1:  # captions
        return labels.lengths == 0
    if isinstance(labels, Ragged) or is_masks(labels):
        return np.zeros(len(labels), bool)
    missing = np.isnan(labels) if labels.dtype.kind == "f" else labels == NO_LABEL
    return missing if labels.ndim == 1 else missing.reshape(len(labels), -1).any(axis=1)


def one_class_each(labels: Any) -> bool:
    """Whether labels, as an array or a tensor, are one class for each row."""
    return not hasattr(labels, "starts") and labels.ndim == 1 and "int" in str(labels.dtype)


_MASKS = pa.struct([("height", pa.int32()), ("width", pa.int32()), ("pixels", pa.large_binary())])


def object_array(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different shapes as one array of objects [rows]."""
    found = np.empty(len(rows), object)
    for number, row in enumerate(rows):
        found[number] = row
    return found


# ── as columns of a table ───────────────────────────────────────────────────────────────────────────────────────────


def to_column(labels: Labels) -> pa.Array[Any]:
    """The column of a part's table that holds these labels; their memory is not copied."""
    if isinstance(labels, Ragged):
        return pa.LargeListArray.from_arrays(pa.array(labels.starts), _fixed(labels.values))
    return _fixed(labels)


def _fixed(values: np.ndarray) -> pa.Array[Any]:
    if values.dtype == object:
        masks = [{"height": each.shape[0], "width": each.shape[1], "pixels": each.tobytes()} for each in values]
        return pa.array(masks, _MASKS)
    if values.ndim == 1:
        return pa.array(values)
    if values.ndim == 3:
        lines = _fixed(np.ascontiguousarray(values).reshape(-1, values.shape[2]))
        return pa.FixedSizeListArray.from_arrays(lines, values.shape[1])
    width = values.shape[1]
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if not width:  # a list of no numbers cannot say how many rows there are
        return pa.nulls(len(values), pa.list_(flat.type, 0))
    return pa.FixedSizeListArray.from_arrays(flat, width)


def from_column(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> Labels:
    """The labels that a column of a part's table holds."""
    whole: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type):
        starts = whole.offsets.to_numpy().astype(np.int64)
        values = _from_fixed(whole.values)
        return Ragged.of(values[starts[0] : starts[-1]], np.diff(starts))
    if pa.types.is_struct(whole.type):
        return object_array(
            [np.frombuffer(m["pixels"], np.uint8).reshape(m["height"], m["width"]) for m in whole.to_pylist()]
        )
    found = _from_fixed(whole)
    return found.astype(np.int64) if found.ndim == 1 else found


def _from_fixed(values: Any) -> np.ndarray:
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    inner = _from_fixed(values.flatten())
    return inner.reshape(len(values), values.type.list_size, *inner.shape[1:])
