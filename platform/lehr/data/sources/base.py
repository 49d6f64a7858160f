"""What every source is made of, and what several of them share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs

from lehr.errors import JobError, LehrError
from lehr.paths import packaged_path
from lehr.runs.storage import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, PATIENCE_SECONDS

T = TypeVar("T")
ErrorFactory = Callable[[str, str], JobError]  # (field, sentence) -> the error to raise


class Part(Protocol):
    """One piece of a source, small enough for memory; picklable."""

    @property
    def rows(self) -> int: ...

    def labels(self) -> np.ndarray:
        """int64 [rows], without reading any image."""
        ...

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        """All rows, or only those given, in that order.

        Columns `image` (binary) and `label` (int64). An image is an encoded file; where there is a column `shape`
        ([height, width, channels]) it is the raw uint8 pixels.
        """
        ...

    def name(self, row: int) -> str:
        """What a person would look for to find this image."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set before decoding. A row's id is its number in the order of the parts.

    Attributes:
        name: what messages call it.
        parts: its rows, in order.
        classes: class names in label order.
        own: its other splits, where it has them: `validation`, `test`.
        notes: what a person should be told about it, one sentence each.
    """

    name: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    own: Mapping[str, Source] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def starts(self) -> np.ndarray:
        """int64 [parts + 1]: the id of each part's first row, and the number of rows."""
        return np.cumsum([0, *(part.rows for part in self.parts)])

    def labels(self) -> np.ndarray:
        """int64 [rows]: the label of every row."""
        return np.concatenate([part.labels() for part in self.parts]) if self.parts else np.empty(0, np.int64)

    def name_of(self, row: int) -> str:
        """What a person would look for to find the image of this id."""
        starts = self.starts
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return self.parts[number].name(row - int(starts[number]))

    def with_classes(self, classes: tuple[str, ...]) -> Source:
        """The same rows with labels that index `classes`, which must hold all of its own."""
        if classes == self.classes:
            return self
        table = tuple(classes.index(name) for name in self.classes)
        return replace(self, parts=tuple(Relabelled(part, table) for part in self.parts), classes=classes)

    def only(self, classes: tuple[str, ...]) -> Source:
        """The rows of these classes of its own, with labels that index `classes`."""
        table = np.full(len(self.classes), -1, np.int64)
        for label, name in enumerate(classes):
            if name in self.classes:
                table[self.classes.index(name)] = label
        parts = []
        for part in self.parts:
            labels = part.labels()
            if len(chosen := np.flatnonzero(table[labels] >= 0)):
                parts.append(Chosen(part, tuple(chosen.tolist()), tuple(table[labels[chosen]].tolist())))
        own = {split: source.only(classes) for split, source in self.own.items()}
        return replace(self, parts=tuple(parts), classes=classes, own=own)


@dataclass(frozen=True)
class Chosen:
    """Some rows of a part, with new labels."""

    part: Part
    chosen: tuple[int, ...]
    of_rows: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.chosen)

    def labels(self) -> np.ndarray:
        return np.array(self.of_rows, np.int64)

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        rows = range(self.rows) if rows is None else rows
        table = self.part.read([self.chosen[row] for row in rows])
        labels = np.array([self.of_rows[row] for row in rows], np.int64)
        return table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels))

    def name(self, row: int) -> str:
        return self.part.name(self.chosen[row])


@dataclass(frozen=True)
class Relabelled:
    """A part whose label k becomes `table[k]`."""

    part: Part
    table: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.part.rows

    def labels(self) -> np.ndarray:
        return np.array(self.table, np.int64)[self.part.labels()]

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        table = self.part.read(rows)
        labels = np.array(self.table, np.int64)[table["label"].to_numpy()]
        return table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels))

    def name(self, row: int) -> str:
        return self.part.name(row)


def file_system(path: str) -> tuple[Any, str]:
    """The file system of a path or URI, and the path in it.

    Raises:
        ValueError: no file system has such an address; the sentence says so.
    """
    path = packaged_path(path)
    try:
        return pyarrow.fs.FileSystem.from_uri(path if "://" in path else Path(path).absolute().as_uri())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f'"{path}" cannot be reached: {str(error).splitlines()[0]}') from error


def reading(path: str, read: Callable[[], T]) -> T:
    """What `read` gives, which reads the file at `path`. A remote file is tried again while its store may come back.

    Raises:
        LehrError: it is gone, damaged or out of reach; the sentence names it.
    """
    began, wait = time.monotonic(), FIRST_WAIT_SECONDS
    while True:
        try:
            return read()
        except FileNotFoundError:
            raise LehrError(f"data: {path} was there when the job started, and is gone") from None
        except pa.ArrowInvalid as error:
            raise LehrError(f"data: {path} is damaged: {str(error).splitlines()[0]}") from error
        except (OSError, pa.ArrowException) as error:
            if "://" not in path or time.monotonic() - began > PATIENCE_SECONDS:
                cause = str(getattr(error, "strerror", None) or error).splitlines()[0]
                raise LehrError(f"data: {path} cannot be read: {cause}") from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def join_path(path: str, inside: str) -> str:
    """A path or URI one or more levels deeper."""
    return f"{path.rstrip('/')}/{inside}"


SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_folders(names: Sequence[str]) -> dict[str, str]:
    """From split (`train`, `validation`, `test`) to folder, if the folders are splits of a data set; else empty."""
    found = {SPLITS[name.lower()]: name for name in names if name.lower() in SPLITS}
    return found if "train" in found and len(found) == len(names) else {}


def class_names(metadata: Mapping[bytes, bytes] | None) -> tuple[str, ...] | None:
    """Class names from a Parquet schema's metadata: comma-separated, or a JSON list where a name holds a comma."""
    text = (metadata or {}).get(b"classes", b"").decode()
    if not text:
        return None
    return tuple(json.loads(text)) if text.startswith("[") else tuple(text.split(","))


def class_metadata(classes: Sequence[str]) -> dict[str, str]:
    """The metadata from which `class_names` reads the classes."""
    plain = not any("," in name for name in classes) and not classes[0].startswith("[")
    return {"classes": ",".join(classes) if plain else json.dumps(list(classes), ensure_ascii=False)}
