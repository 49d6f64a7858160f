"""Where images come from. A source is a list of parts, each read on its own, so that many processes can share the work.

To add one: write a function (section, error) -> Source and name it in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from lehr.errors import JobError
from lehr.job import DataSection

Refuse = Callable[[str, str], JobError]  # (field, sentence) -> the error to raise


class Part(Protocol):
    """One piece of a source, small enough for memory; picklable."""

    @property
    def rows(self) -> int: ...

    def read(self) -> pa.Table:
        """A table with columns `image` (binary: one encoded image file a row) and `label` (int64)."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set before decoding: its parts in order, and the class names in label order."""

    name: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a Parquet file."""

    path: str
    row_group: int
    rows: int

    def read(self) -> pa.Table:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(_uri(self.path))
        with filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file).read_row_group(self.row_group, columns=["image", "label"])


def _uri(path: str) -> str:
    return path if "://" in path else Path(path).absolute().as_uri()


def _digits(section: DataSection, refuse: Refuse) -> Source:
    """The bundled optical digits: 1,797 scans of 8 × 8 pixels (UCI Machine Learning Repository, CC BY 4.0)."""
    return _parquet_files([str(Path(__file__).with_name("digits.parquet"))], "digits", "data.source", refuse)


def _parquet(section: DataSection, refuse: Refuse) -> Source:
    """Parquet files with columns `image` (encoded files) and `label` (int64), class names in the schema metadata."""
    assert section.path is not None, "the job file's own checks ask for data.path"
    filesystem, path = pyarrow.fs.FileSystem.from_uri(_uri(section.path))
    info = filesystem.get_file_info(path)
    if info.type == pyarrow.fs.FileType.NotFound:
        raise refuse("data.path", f'"{section.path}" does not exist')
    if info.type == pyarrow.fs.FileType.File:
        return _parquet_files([section.path], section.path, "data.path", refuse)
    inside = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    prefix = section.path.split("://", 1)[0] + "://" if "://" in section.path else ""
    files = sorted(prefix + entry.path for entry in inside if entry.path.endswith(".parquet"))
    if not files:
        raise refuse("data.path", f'"{section.path}" holds no .parquet file')
    return _parquet_files(files, section.path, "data.path", refuse)


def _parquet_files(paths: list[str], name: str, field: str, refuse: Refuse) -> Source:
    parts: list[Part] = []
    classes: tuple[str, ...] | None = None
    for path in paths:
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(_uri(path))
        try:
            with filesystem.open_input_file(inner) as file:
                footer = pq.ParquetFile(file)
                schema, metadata = footer.schema_arrow, footer.metadata
        except pa.ArrowInvalid:
            raise refuse(field, f'"{path}" is not a Parquet file') from None
        if missing := {"image", "label"} - set(schema.names):
            raise refuse(
                field,
                f'"{path}" has no column {" and ".join(sorted(missing))}; its columns are {", ".join(schema.names)}',
            )
        if classes is None and b"classes" in (schema.metadata or {}):
            classes = tuple(schema.metadata[b"classes"].decode().split(","))
        parts += [
            ParquetPart(path, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)
        ]
    if classes is None:
        raise refuse(field, f'"{name}" names no classes; allowed: class names, comma-separated, in the schema metadata')
    if not sum(part.rows for part in parts):
        raise refuse(field, f'"{name}" has no rows')
    return Source(name, tuple(parts), classes)


SOURCES: dict[str, Callable[[DataSection, Refuse], Source]] = {"digits": _digits, "parquet": _parquet}


def open_source(section: DataSection, refuse: Refuse) -> Source:
    """The source that a job's `data` section names.

    Raises:
        JobError: the source is unknown, missing, empty or of the wrong form.
    """
    if section.source not in SOURCES:
        raise refuse("data.source", f'"{section.source}" is not a source; allowed: {", ".join(SOURCES)}')
    return SOURCES[section.source](section, refuse)
