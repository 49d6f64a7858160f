"""Arrow files: what `save_to_disk` of Hugging Face's `datasets` writes, and Feather or Arrow IPC files of others.

Each record batch is a part. A folder of `save_to_disk` lists its files, in order, in `state.json`; a folder of several
has one for each split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from lehr.data.sources.base import ErrorFactory, Source, file_system, join_path, read_with_retries
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.shards import Shards, find_shards
from lehr.data.sources.tabular import Wanted, in_splits, some, table_source
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

ENDINGS = (".arrow", ".feather", ".ipc")
STATE = "state.json"
MOST_STATE_BYTES = 16 << 20
_FILE_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class ArrowChunk:
    """One record batch of an Arrow file.

    Attributes:
        number: which of the batches. first: the position of its first row in the file.
    """

    path: str
    number: int
    first: int
    rows: int

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        def read() -> pa.Table:
            with _opened(self.path) as reader:
                if isinstance(reader, pa.RecordBatchFileReader):
                    batch = reader.get_batch(self.number)
                else:
                    for _ in range(self.number):
                        reader.read_next_batch()
                    batch = reader.read_next_batch()
                return pa.Table.from_batches([batch]).select(names)

        return some(read_with_retries(self.path, read), rows)

    def name(self, row: int) -> str:
        return f"{self.path} row {self.first + row}"


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The reader of a file or a stream. On a disk it is mapped, so that only what is asked for is read."""
    filesystem, inner = file_system(path)
    local = isinstance(filesystem, LocalFileSystem)
    with pa.memory_map(inner) if local else filesystem.open_input_file(inner) as file:
        start = file.read(len(_FILE_MAGIC))
        file.seek(0)
        yield pa.ipc.open_file(file) if start == _FILE_MAGIC else pa.ipc.open_stream(file)


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The rows of an Arrow file, or of all in a folder or of a pattern."""
    assert section.path is not None, "DataSection requires a path for this source"
    wanted = Wanted.of(section, kind)
    shards = find_shards(section.path, ENDINGS, "data.path", job_error)
    sources = {
        split: _source(_in_order(paths), name, wanted, job_error) for split, (name, paths) in _saved(shards).items()
    }
    return with_splits(
        in_splits(section.path, sources, shards.notes if not _is_saved(shards) else ()), section, job_error
    )


def _is_saved(shards: Shards) -> bool:
    return bool(_state(shards.first))


def _saved(shards: Shards) -> dict[str, tuple[str, list[str]]]:
    """Without the caches that `datasets` leaves beside what it saved."""
    return {
        split: (name, [path for path in paths if not path.rsplit("/", 1)[-1].startswith("cache-")] or paths)
        for split, (name, paths) in shards.splits.items()
    }


def _in_order(paths: list[str]) -> list[str]:
    """The files in the order that `state.json` beside them says, without others there."""
    named = _state(paths[0])
    folder = paths[0].rpartition("/")[0]
    listed = [join_path(folder, name) for name in named]
    return listed if listed and set(listed) <= set(paths) else paths


def _state(path: str) -> list[str]:
    """The names of the files that the `state.json` beside a file lists; none where there is none."""
    try:
        filesystem, inner = file_system(join_path(path.rpartition("/")[0], STATE))
        with filesystem.open_input_file(inner) as file:
            listed = json.loads(file.read(MOST_STATE_BYTES))["_data_files"]
        return [str(each["filename"]) for each in listed]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _source(paths: list[str], name: str, wanted: Wanted, job_error: ErrorFactory) -> Source:
    chunks: list[ArrowChunk] = []
    schema: pa.Schema | None = None
    for path in paths:
        try:
            with _opened(path) as reader:
                schema, first = schema or reader.schema, 0
                for number, rows in enumerate(_sizes(reader)):
                    if rows:
                        chunks.append(ArrowChunk(path, number, first, rows))
                    first += rows
        except (OSError, ValueError) as error:  # ArrowInvalid is one
            raise job_error("data.path", f'"{path}" is not an Arrow file: {str(error).splitlines()[0]}') from None
    assert schema is not None, "there is a file"
    theirs = b"huggingface" in (schema.metadata or {})
    form = "Arrow as Hugging Face saves it" if theirs else "Arrow"
    return table_source(chunks, schema, name, "data.path", job_error, wanted, form, name)


def _sizes(reader: Any) -> Iterator[int]:
    """The rows of each batch."""
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
    else:
        yield from (batch.num_rows for batch in reader)
