"""The output of a prediction: one Parquet file for each part of the source.

A file has the part's number in its name and the prediction's fingerprint in its metadata. Files in order of their names
therefore hold rows in order of their ids, writing a part twice changes nothing, and a finished part can be kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.data.decode import Decoded
from lehr.data.labels import Ragged, to_column, without_label
from lehr.data.sources import Part
from lehr.data.sources.base import class_metadata
from lehr.errors import LehrError
from lehr.predict.predictor import Predictor
from lehr.predict.rows import Predictions
from lehr.runs import Folder
from lehr.tasks.classification import lists
from lehr.tasks.mask_arrays import as_palette_png

BESIDE = "coco_results.json"
"""What may lie beside the files of a prediction: it is made of them."""
_NAME = re.compile(r"part-(\d+)\.parquet")


@dataclass(frozen=True)
class PartResult:
    """A part that has been written.

    Attributes:
        number: the part's number in the source, from 0.
        rows: the number of its rows.
        unreadable: (id, why) of each image that could not be read.
        ready: since when the process that wrote it could work, in seconds since 1970; 0 if that was in another attempt.
    """

    number: int
    rows: int
    unreadable: tuple[tuple[int, str], ...] = ()
    ready: float = field(default=0.0, compare=False)  # a time, and no part of what was predicted


@dataclass(frozen=True)
class PartMetadata:
    """What a file says about itself in its Parquet metadata, besides the class names.

    Attributes:
        fingerprint: that of the prediction, which distinguishes its files from those of any other.
        unreadable: (id, why) of each image that could not be read.
    """

    fingerprint: str
    unreadable: tuple[tuple[int, str], ...] = ()

    @classmethod
    def read(cls, metadata: Mapping[bytes, bytes]) -> PartMetadata | None:
        """From the metadata of a schema; None if the file is not a prediction."""
        try:
            unreadable = json.loads(metadata[b"unreadable"])
            return cls(metadata[b"mark"].decode(), tuple((row, why) for row, why in unreadable))
        except (KeyError, TypeError, ValueError):
            return None

    def write(self) -> dict[str, str]:
        """For the metadata of a schema."""
        return {"mark": self.fingerprint, "unreadable": json.dumps(self.unreadable)}


def fingerprint_of(*inputs: object) -> str:
    """16 hex digits that change with anything in `inputs`, which must be plain values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_part(out: Folder, number: int, table: pa.Table) -> None:
    """Writes or replaces the file of a part."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    out.write(f"part-{number:06}.parquet", buffer.getvalue())


def part_table(
    first: int, part: Part, decoded: Decoded, found: Predictions, predictor: Predictor, fingerprint: str
) -> pa.Table:
    """The rows of a part: `id`, `name`, `label`, the columns of the run's task, and one column per member.

    Labels that are unknown become null, and so does everything that is predicted for an unreadable image.

    Args:
        first: the id of the first row.
        fingerprint: that of the prediction.
    """
    labels, unreadable, unknown = decoded.labels, found.unreadable, without_label(decoded.labels)
    if (label_column := predictor.task.label_column(labels)) is not None:
        label = label_column
    elif isinstance(labels, Ragged):
        label = to_column(labels)
    elif labels.dtype == object:
        label = pa.array([as_palette_png(mask) if mask.size else None for mask in labels], pa.large_binary())
    else:
        label = pa.array(labels, mask=labels < 0) if labels.ndim == 1 else lists(labels, unknown)
    columns: dict[str, pa.Array[Any]] = {
        "id": pa.array(np.arange(first, first + len(labels))),
        "name": pa.array([part.name(row) for row in range(len(labels))]),
        "label": label,
        **predictor.task.columns(found.probabilities, unreadable),
    }
    for name, values in zip(predictor.names, () if found.members is None else found.members, strict=False):
        if values.ndim == 2 and values.dtype != object:
            columns[f"member {name}"] = lists(values, unreadable)
            continue
        columns |= {f"member {name} {what}": of for what, of in predictor.task.columns(values, unreadable).items()}
    metadata = PartMetadata(fingerprint, tuple((first + row, why) for row, why in decoded.unreadable))
    return pa.table(columns).replace_schema_metadata({**class_metadata(predictor.classes), **metadata.write()})


def read_parts(out: Folder) -> dict[str, tuple[str, PartResult]]:
    """The files of predictions in a folder: by name, the prediction's fingerprint and the part that was written.

    Raises:
        LehrError: the folder holds a file that is not a prediction.
    """
    found = {}
    for name in out.files():
        if name == BESIDE:
            continue
        named, footer = _NAME.fullmatch(name), _read_footer(out, name)
        if not named or not footer:
            what = f"holds {name}, which is not a prediction; allowed: an empty or new folder"
            raise LehrError(f"{out.uri}: {what}")
        metadata, rows = footer
        found[name] = metadata.fingerprint, PartResult(int(named[1]), rows, metadata.unreadable)
    return found


def _read_footer(out: Folder, name: str) -> tuple[PartMetadata, int] | None:
    """The metadata of a file and the number of its rows; None if the file is not a prediction."""
    try:
        with out.open_input_file(name) as file:
            footer = pq.ParquetFile(file)
            metadata = PartMetadata.read(footer.schema_arrow.metadata or {})
            return (metadata, footer.metadata.num_rows) if metadata else None
    except pa.ArrowInvalid:
        return None


def keep_parts(out: Folder, fingerprint: str | None, count: int) -> list[PartResult]:
    """The parts that an earlier attempt at the same prediction has written. Deletes the files of any other prediction.

    Args:
        fingerprint: that of the prediction; None keeps nothing.
        count: the number of parts in the source.
    """
    kept = []
    for name, (theirs, result) in read_parts(out).items():
        if theirs == fingerprint and result.number < count:
            kept.append(result)
        else:
            out.delete(name)
    return kept
