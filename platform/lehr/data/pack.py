"""Packs any source into Parquet shards: few large files that are read sequentially, instead of many small ones."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem

from lehr.data.decode import raw_rows
from lehr.data.labels import Labels, from_column, without_label
from lehr.data.pixels import PixelFormat, from_array
from lehr.data.sources.base import Source, class_metadata, file_system, join_path
from lehr.errors import LehrError
from lehr.tasks.forms import LabelKind

GROUP_BYTES = 16 << 20  # of encoded images in one row group, which is always read as a whole
GROUP_ROWS = 5_000
FILE_BYTES = 512 << 20
COLUMNS: list[pa.Field] = [pa.field("image", pa.binary()), pa.field("label", pa.int64())]
SCHEMA = pa.schema(COLUMNS)
LISTS: dict[str, Any] = {"classes": pa.list_(pa.int32()), "numbers": pa.list_(pa.float64())}
"""How the labels of rows without one class are packed: the classes of each row by number, or its numbers."""


def pack(source: Source, target: str, advance: Callable[[int], None] = lambda rows: None) -> int:
    """Writes a source as Parquet shards, one folder per split if it has several; returns the number of files.

    Encoded images are copied unchanged, raw pixels become PNG. Rows keep their order.

    Args:
        source: what to pack.
        target: a folder or URI, empty or new.
        advance: called with the number of rows just written.

    Raises:
        LehrError: the target is not empty, or cannot be written; or the rows have boxes.
    """
    if source.kind in ("boxes", "mask", "captions"):
        what = f"Parquet files of lehr hold no {'masks' if source.kind == 'mask' else source.kind}"
        raise LehrError(f"{source.name}: {what}; use the data set as it is: data.path=…")
    try:
        filesystem, path = file_system(target)
        info = filesystem.get_file_info(path)
        taken = info.is_file or any(filesystem.get_file_info(FileSelector(path, allow_not_found=True)))
    except (OSError, ValueError) as error:
        raise LehrError(f"{target}: cannot be reached: {str(error).splitlines()[0]}") from error
    if taken:
        raise LehrError(f"{target}: is not empty; allowed: an empty folder, or one that does not exist yet")
    with _whole(filesystem, path) as place:
        if not source.other_splits:
            return _write_shards(source, filesystem, place, advance)
        splits = {"train": source, **source.other_splits}
        return sum(_write_shards(split, filesystem, f"{place}/{name}", advance) for name, split in splits.items())


@contextmanager
def _whole(filesystem: FileSystem, path: str) -> Iterator[str]:
    """Where to write what becomes the folder `path` once the block ends: a killed pack is no data set of fewer rows.

    An object store has no renaming: there the files are written in place, and deleted if the block raises.

    Raises LehrError where it cannot be written.
    """
    local = isinstance(filesystem, LocalFileSystem)
    folder, name = os.path.split(path.rstrip("/"))
    place = f"{folder}/.{name}.{secrets.token_hex(6)}" if local else path
    try:
        try:
            yield place
            if local:
                os.replace(place, path)
        except BaseException:
            with suppress(OSError):
                filesystem.delete_dir_contents(place)
                filesystem.delete_dir(place)
            raise
    except OSError as error:
        raise LehrError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error


def _write_shards(source: Source, filesystem: FileSystem, path: str, advance: Callable[[int], None]) -> int:
    filesystem.create_dir(path, recursive=True)
    plain = SCHEMA if source.kind == "class" else SCHEMA.set(1, pa.field("label", LISTS[source.kind]))
    schema = plain.with_metadata(class_metadata(source.classes))
    writer, files, size = None, 0, 0
    try:
        for group in _groups(source):
            if writer is None:
                file = join_path(path, f"part-{files:05d}.parquet")
                writer, size = pq.ParquetWriter(file, schema, filesystem=filesystem), 0
                files += 1
            writer.write_table(group.cast(schema).replace_schema_metadata(schema.metadata), row_group_size=len(group))
            size += group.nbytes
            advance(len(group))
            if size > FILE_BYTES:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    return files


def _groups(source: Source) -> Iterator[pa.Table]:
    """The rows as tables of the size of a row group."""
    waiting: list[pa.Table] = []
    for part in source.parts:
        table = _encoded(part.read(), source.kind)
        step = max(1, min(GROUP_ROWS, len(table) * GROUP_BYTES // max(1, table.nbytes)))
        for start in range(0, len(table), step):
            waiting.append(table.slice(start, step))
            rows = sum(map(len, waiting))
            if rows >= GROUP_ROWS or sum(piece.nbytes for piece in waiting) >= GROUP_BYTES:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _encoded(table: pa.Table, kind: LabelKind) -> pa.Table:
    """Columns `image` (encoded) and `label`; raw pixels become PNG files."""
    if kind != "class":
        lists = _lists(from_column(table["label"]), kind)
        encoded = _encoded(
            table.drop_columns("label").append_column("label", pa.nulls(len(table), pa.int64())), "class"
        )
        return encoded.drop_columns("label").append_column("label", lists)
    if "shape" not in table.schema.names:
        return table.select(["image", "label"]).cast(SCHEMA)
    images = []
    for image, shape, dtype in raw_rows(table):
        if shape is not None and image:
            pixels = np.frombuffer(image, dtype or np.uint8).reshape(shape)
            if pixels.dtype != np.uint16 or shape[2] > 1:  # a PNG holds 16 bits of grey unchanged
                pixels = from_array(pixels, PixelFormat(channels=shape[2]))
            file = io.BytesIO()
            Image.fromarray(pixels[:, :, 0] if shape[2] == 1 else pixels).save(file, "PNG")
            image = file.getvalue()
        images.append(image)
    return table.select(["image", "label"]).set_column(0, "image", pa.array(images, pa.binary())).cast(SCHEMA)


def _lists(labels: Labels, kind: LabelKind) -> pa.Array[Any]:
    """Labels [rows, names] as lists; a row without label is null."""
    assert isinstance(labels, np.ndarray), "classes and numbers have a column for each name"
    missing = without_label(labels)
    rows = [np.flatnonzero(row > 0).tolist() if kind == "classes" else row.tolist() for row in labels]
    given: list[list[Any] | None] = [None if odd else row for row, odd in zip(rows, missing, strict=True)]
    return pa.array(given, type=LISTS[kind])
