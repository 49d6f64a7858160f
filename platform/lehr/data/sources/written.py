"""Rows that come one after the other and are more than memory should hold: written as Parquet files, read by part.

They lie in the storage of the job, which every node reaches, in a folder of the process that wrote them
(`.rows/PROCESS-0`). It goes when that process ends; what a killed one left goes when rows are written there again.
"""

from __future__ import annotations

import atexit
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from lehr.data.sources.base import file_system, join_path, number_from_environment
from lehr.data.sources.image_columns import COLUMNS
from lehr.data.sources.parquet import ParquetPart
from lehr.formatting import format_path, format_seconds
from lehr.machine import memory
from lehr.processes import Process, is_running, this_process

MOST_HELD = "LEHR_MOST_HELD_BYTES"
"""Environment variable: the most bytes of rows that are held in memory; by default an eighth of it, 8 GB at most."""
MOST_BY_DEFAULT, SHARE = 8 << 30, 8
GROUP_ROWS, GROUP_BYTES = 512, 32 << 20
"""Of a row group, which is read as a whole."""
FILE_BYTES = 128 << 20
FOLDER = ".rows"

_storage: ContextVar[str] = ContextVar("storage", default="")
_numbers = itertools.count()


def most_held() -> int:
    """Bytes of rows that are held in memory. Raises LehrError for a LEHR_MOST_HELD_BYTES that is not a number."""
    return number_from_environment(MOST_HELD, min(MOST_BY_DEFAULT, memory() // SHARE))


@contextmanager
def in_storage(storage: str) -> Iterator[None]:
    """Rows that are written within are written to this storage; else to the folder for temporary files."""
    token = _storage.set(storage)
    try:
        yield
    finally:
        _storage.reset(token)


@dataclass(frozen=True)
class WrittenChunk:
    """Some rows of what was written.

    Attributes:
        part: where they lie.
        of: how a person finds a row: a text with `{}` for its number.
        first: the number of the first.
    """

    part: ParquetPart
    of: str
    first: int

    @property
    def rows(self) -> int:
        return self.part.rows

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        return self.part.columns(names, rows)

    def name(self, row: int) -> str:
        return self.of.format(self.first + row)


@dataclass(frozen=True)
class File:
    """One file that was written: the rows of each of its row groups, and its bytes."""

    path: str
    groups: tuple[int, ...]
    size: int


def write_file(table: pa.Table, path: str) -> File:
    """Writes rows in row groups of a size that is soon read."""
    rows = max(1, min(GROUP_ROWS, GROUP_BYTES * len(table) // max(1, table.nbytes)))
    filesystem, inside = file_system(path)
    with filesystem.open_output_stream(inside) as file:
        pq.write_table(table, file, row_group_size=rows, compression="lz4")
        size = file.tell()
    full, rest = divmod(len(table), rows)
    return File(path, (rows,) * full + ((rest,) if rest else ()), size)


class Writing:
    """Files of rows that are written one after the other, in a folder of this process's own.

    Args:
        name: what they are rows of, for messages.
        of: how a person finds a row: a text with `{}` for its number.
        first: the number of the first.
    """

    def __init__(self, name: str, of: str, first: int = 0) -> None:
        self._name, self._of, self._first, self._began = name, of, first, time.monotonic()
        self.folder, self._files, self._asked = _new_folder(), list[File](), 0

    def next_path(self) -> str:
        """Where the next file is to be written; files are read in the order in which this was asked."""
        self._asked += 1
        return join_path(self.folder, f"{self._asked - 1:06d}.parquet")

    def add(self, file: File) -> None:
        self._files.append(file)

    def chunks(self) -> list[WrittenChunk]:
        """All rows, a chunk for each row group."""
        return [chunk for of_file in self.by_file() for chunk in of_file]

    def by_file(self) -> list[list[WrittenChunk]]:
        """The same for each file."""
        found, number = list[list[WrittenChunk]](), self._first
        for file in self._files:
            of_file, first = list[WrittenChunk](), 0
            for group, rows in enumerate(file.groups):
                part = ParquetPart(file.path, group, first, rows, COLUMNS[:1], "")
                of_file.append(WrittenChunk(part, self._of, number + first))
                first += rows
            found.append(of_file)
            number += first
        return found

    def told(self) -> str:
        rows, size = sum(sum(file.groups) for file in self._files), sum(file.size for file in self._files)
        took = format_seconds(time.monotonic() - self._began)
        where = self.folder if "://" in self.folder else format_path(Path(self.folder))
        return (
            f"{self._name}: {rows:,} rows, more than {most_held() / 1e9:.3g} GB, are written to {where} "
            f"({size / 1e9:.3g} GB, {took}), and removed when this job ends"
        )


def _new_folder() -> str:
    """An empty folder of this process, that goes when it ends; those of processes that have ended go now."""
    among = join_path(_storage.get() or tempfile.gettempdir(), FOLDER)
    filesystem, inside = file_system(among)
    filesystem.create_dir(inside, recursive=True)
    for entry in filesystem.get_file_info(FileSelector(inside)):
        owner = Process.parse(entry.base_name.rpartition("-")[0])
        if entry.type == FileType.Directory and owner and not is_running(owner):
            with suppress(OSError):
                filesystem.delete_dir(entry.path)
    path = join_path(among, f"{this_process()}-{next(_numbers)}")
    filesystem.create_dir(join_path(inside, os.path.basename(path)))
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, pid: int) -> None:
    if os.getpid() != pid:  # a fork of the process that wrote it
        return
    with suppress(OSError, pa.ArrowException):
        filesystem, inside = file_system(path)
        filesystem.delete_dir(inside)
    if "://" not in path:
        with suppress(OSError):
            Path(path).parent.rmdir()  # the last one turns off the light
