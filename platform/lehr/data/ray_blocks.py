"""One pass over a user's Ray Dataset, in its order: its blocks are held, or written to files where they are too many.

Nothing of the dataset is materialised: a block is written while the next ones are made, and freed. Held or written,
rows and order are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data.block import BlockAccessor

from lehr.data.sources.written import File, Writing, WrittenChunk, write_file

AT_ONCE = 4
"""Blocks that are written at the same time."""
AsColumns = Callable[[pa.Table, Any], pa.Table]


@dataclass(frozen=True)
class _Labels:
    """The labels of a block: each that occurs, and for each row which of them."""

    found: tuple[Any, ...]
    codes: np.ndarray

    def labels(self, index: Mapping[Any, int]) -> np.ndarray:
        """int64 [rows]: the number of each row's label."""
        return np.array([index[label] for label in self.found], np.int64)[self.codes]


@dataclass(frozen=True)
class Held(_Labels):
    """A block in the object store."""

    ref: ray.ObjectRef


@dataclass(frozen=True)
class Written(_Labels):
    """A block in a file."""

    chunks: tuple[WrittenChunk, ...] = ()


def taken(dataset: ray.data.Dataset, as_columns: AsColumns, name: str, most: int) -> tuple[list[Held | Written], str]:
    """The blocks of a dataset, in its order, and what there is to tell of them; empty if they are held.

    Args:
        as_columns: from a block and numbers of its rows to the columns of a part's table.
        name: of the dataset, for messages.
        most: bytes that are held; where they are more, all are written.
    """
    blocks, size = list[ray.ObjectRef](), 0
    refs = _refs(dataset.select_columns(["image", "label"]))
    for ref, its_size in refs:
        blocks.append(ref)
        size += its_size
        if size > most:
            return _written(blocks, refs, as_columns, name)
    look = ray.remote(num_cpus=0)(_labels_of)
    return [
        Held(found, codes, ref)
        for ref, (found, codes) in zip(blocks, ray.get([look.remote(b) for b in blocks]), strict=True)
    ], ""


def _refs(dataset: ray.data.Dataset) -> Iterator[tuple[ray.ObjectRef, int]]:
    """Each block as an Arrow table, in the order of the dataset, and its bytes."""
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    convert = ray.remote(num_cpus=0)(_as_arrow)
    for bundle in dataset.iter_internal_ref_bundles():
        plain = isinstance(bundle.schema, pa.Schema)
        for entry, cut in zip(bundle.blocks, bundle.slices or (None,) * len(bundle.blocks), strict=True):
            ends = None if cut is None else (cut.start_offset, cut.end_offset)
            ref = entry.ref if plain and ends is None else convert.remote(entry.ref, ends)
            yield ref, entry.metadata.size_bytes or 0


def _as_arrow(block: Any, ends: tuple[int, int] | None) -> pa.Table:
    table = BlockAccessor.for_block(block).to_arrow()
    return table if ends is None else table.slice(ends[0], ends[1] - ends[0])


def _written(
    blocks: list[ray.ObjectRef], rest: Iterator[tuple[ray.ObjectRef, int]], as_columns: AsColumns, name: str
) -> tuple[list[Held | Written], str]:
    writing, pending, labels = (
        Writing(name, "row {} of the dataset"),
        deque[ray.ObjectRef](),
        list[tuple[tuple[Any, ...], np.ndarray]](),
    )
    write = ray.remote(num_cpus=0)(_write)

    def finish() -> None:
        found, codes, file = ray.get(pending.popleft())
        labels.append((found, codes))
        writing.add(file)

    def submit(ref: ray.ObjectRef) -> None:
        if len(pending) >= AT_ONCE:
            finish()
        pending.append(write.remote(ref, writing.next_path(), as_columns))

    while blocks:
        submit(blocks.pop(0))
    for ref, _ in rest:
        submit(ref)
    while pending:
        finish()
    chunks = writing.by_file()
    blocks_written = [
        Written(found, codes, tuple(of_file)) for (found, codes), of_file in zip(labels, chunks, strict=True)
    ]
    return [*blocks_written], writing.told()


def _labels_of(table: pa.Table) -> tuple[tuple[Any, ...], np.ndarray]:
    """The labels of a block as `_Labels` has them; a label that is missing is None."""
    column: Any = table["label"]
    if pa.types.is_nested(column.type):  # which are no labels, and are refused by the first
        return tuple(tuple(each) for each in column[:1].to_pylist()), np.zeros(len(column), np.int32)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded: Any = pa.chunked_array([column.combine_chunks()]).dictionary_encode("encode").chunk(0)
    return tuple(coded.dictionary.to_pylist()), coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def _write(table: pa.Table, path: str, as_columns: AsColumns) -> tuple[tuple[Any, ...], np.ndarray, File]:
    return (*_labels_of(table), write_file(as_columns(table, range(len(table))), path))
