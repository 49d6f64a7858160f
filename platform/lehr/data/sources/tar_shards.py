"""Tar shards as WebDataset writes them: files that share a name up to its first dot are one row.

`000001.jpg` beside `000001.cls` is an image and its class. What can label a row becomes a column: `cls` (a whole
number, or a name), `txt`, and each field of `json`; `data.columns.label` names one. `data.columns.image` names the
ending of the images where there are several. Where names have dots of their own (`v1.5_07.jpg`), so that the first dot
makes no rows, files that share a name up to the last dot are one row. Shards are not packed (`.tar.gz`), so that a row
is read by its place.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lehr.data.sources.base import ErrorFactory, Source, file_system, read_with_retries
from lehr.data.sources.images import ENDINGS as IMAGES
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.shards import find_shards
from lehr.data.sources.tabular import Wanted, in_splits, some, table_source
from lehr.errors import LehrError
from lehr.job import DataSection
from lehr.tasks.forms import LabelKind

ENDING = ".tar"
ROWS = 256
"""In a part."""
MOST_LABEL_BYTES = 1 << 20
MOST_IMAGE_BYTES = 1 << 30
_FIRST_DOT = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<ending>[^/]+)")
_LAST_DOT = re.compile(r"(?P<key>(?:.*/)?[^/]+)\.(?P<ending>[^./]+)")
LABELS = ("cls", "cls2", "txt", "text", "json", "label")
Place = tuple[int, int]
"""Where bytes lie in a shard: offset and size."""


@dataclass(frozen=True)
class TarChunk:
    """Some rows of a shard.

    Attributes:
        keys: what the rows are called.
        places: by column, where each row's bytes lie; None where it has none.
        labels: the other columns, read already.
    """

    path: str
    keys: tuple[str, ...]
    places: dict[str, tuple[Place | None, ...]]
    labels: pa.Table

    @property
    def rows(self) -> int:
        return len(self.keys)

    def columns(self, names: list[str], rows: Sequence[int] | None = None) -> pa.Table:
        chosen = range(self.rows) if rows is None else rows
        labels = some(self.labels, rows)
        columns: dict[str, Any] = {
            name: self._files(name, chosen) if name in self.places else labels[name] for name in names
        }
        return pa.table(columns)

    def _files(self, name: str, rows: Sequence[int]) -> pa.Array[Any]:
        def read() -> list[bytes | None]:
            filesystem, inner = file_system(self.path)
            with filesystem.open_input_file(inner) as file:
                return [_bytes(file, self.places[name][row]) for row in rows]

        return pa.array(read_with_retries(self.path, read), pa.large_binary())

    def name(self, row: int) -> str:
        return f"{self.path}/{self.keys[row]}"


def _bytes(file: Any, place: Place | None) -> bytes | None:
    if place is None:
        return None
    file.seek(place[0])
    found: bytes = file.read(place[1])
    return found


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The rows of a shard, or of all in a folder or of a pattern."""
    assert section.path is not None, "DataSection requires a path for this source"
    wanted = Wanted.of(section, kind)
    shards = find_shards(section.path, (ENDING,), "data.path", job_error)
    sources = {split: _source(paths, name, wanted, job_error) for split, (name, paths) in shards.splits.items()}
    return with_splits(in_splits(section.path, sources, shards.notes), section, job_error)


def _source(paths: list[str], name: str, wanted: Wanted, job_error: ErrorFactory) -> Source:
    shards = [(path, _members(path, job_error)) for path in paths]
    found = [(path, _rows_of(members, _FIRST_DOT)) for path, members in shards]
    images = _endings(found)
    if len(images) > 1 and wanted.image is None:
        again = [(path, _rows_of(members, _LAST_DOT)) for path, members in shards]
        if len(_endings(again)) == 1 and all(row.files and row.labels for _, rows in again for row in rows):
            found, images = again, _endings(again)
    if not images:
        what = f'"{name}" has no row of tar shards: no image that shares its name with a label, such as 1.jpg and 1.cls'
        raise job_error("data.path", f"{what}; if it is a packed folder, unpack it: tar -xf {paths[0]}")
    labels = list(dict.fromkeys(column for _, rows in found for row in rows for column in row.labels))
    if not labels:
        what = f'"{name}" has images and no labels beside them: no .cls, .txt or .json'
        raise job_error("data.path", f"{what}; if it is a packed folder, unpack it: tar -xf {paths[0]}")
    chunks = [
        _chunk(path, rows[start : start + ROWS], images, labels, job_error)
        for path, rows in found
        for start in range(0, len(rows), ROWS)
    ]
    fields: list[pa.Field[Any]] = [pa.field(column, pa.large_binary()) for column in images]
    fields += [pa.field(column, _type(column, chunks)) for column in labels]
    return table_source(chunks, pa.schema(fields), name, "data.path", job_error, wanted, "tar shards of WebDataset")


@dataclass
class _Row:
    key: str
    files: dict[str, Place]
    labels: dict[str, Any]


@dataclass(frozen=True)
class _Member:
    """A file of a shard that is an image or may label one; of these the content."""

    name: str
    place: Place
    content: bytes | None


def _members(path: str, job_error: ErrorFactory) -> list[_Member]:
    """The images and labels of a shard, in their order. Raises JobError for what is no tar file."""

    def read() -> list[_Member]:
        filesystem, inner = file_system(path)
        with filesystem.open_input_file(inner) as source:
            file: Any = source
            with tarfile.open(fileobj=file, mode="r:") as tar:
                return list(_taken(tar))

    try:
        return read_with_retries(path, read)
    except (tarfile.TarError, LehrError, ValueError) as error:
        text = str(error).removeprefix("data: ")
        raise job_error("data.path", f'"{path}" is no tar file that can be read: {text}') from None


def _taken(tar: tarfile.TarFile) -> Iterator[_Member]:
    for member in tar:
        name, last = member.name.removeprefix("./"), member.name.rpartition(".")[2].lower()
        if not member.isfile() or member.sparse:
            continue
        place = (member.offset_data, member.size)
        if f".{last}" in IMAGES and member.size <= MOST_IMAGE_BYTES:
            yield _Member(name, place, None)
        elif last in LABELS and member.size <= MOST_LABEL_BYTES:
            content = tar.extractfile(member)
            yield _Member(name, place, content.read() if content else b"")


def _rows_of(members: Sequence[_Member], name: re.Pattern[str]) -> list[_Row]:
    """The rows of a shard: neighbours that share their key."""
    rows: list[_Row] = []
    for member in members:
        if (match := name.fullmatch(member.name)) is None:
            continue
        key, ending = match["key"], match["ending"].lower()
        if not rows or rows[-1].key != key:
            rows.append(_Row(key, {}, {}))
        if member.content is None:
            rows[-1].files[ending] = member.place
        else:
            rows[-1].labels |= dict(_labels_in(ending, member.content))
    return rows


def _endings(shards: Sequence[tuple[str, list[_Row]]]) -> list[str]:
    return sorted({column for _, rows in shards for row in rows for column in row.files})


def _labels_in(ending: str, content: bytes) -> Iterator[tuple[str, Any]]:
    """Columns and values: of JSON each field, of text the text, or a whole number where it is one."""
    text = content.decode("utf-8", errors="replace").strip()
    if ending.rpartition(".")[2] != "json":
        yield ending, int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
        return
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    fields = found.items() if isinstance(found, dict) else [("json", found)]
    for name, value in fields:
        if isinstance(value, (str, int, float, bool)) or _is_plain_list(value):
            yield str(name), value


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value)


def _chunk(
    path: str, rows: Sequence[_Row], images: Sequence[str], labels: Sequence[str], job_error: ErrorFactory
) -> TarChunk:
    columns = {}
    for name in labels:
        values = [row.labels.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers beside text
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    places = {name: tuple(row.files.get(name) for row in rows) for name in images}
    return TarChunk(path, tuple(row.key for row in rows), places, pa.table(columns))


def _type(column: str, chunks: Sequence[TarChunk]) -> pa.DataType:
    return next((kind for chunk in chunks if not pa.types.is_null(kind := chunk.labels[column].type)), pa.string())
