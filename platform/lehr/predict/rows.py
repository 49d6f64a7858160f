"""From the parts of a source to rows of predictions. Plain PyTorch and Arrow; who calls it where, others say."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lehr.data.decode import Decoded
from lehr.data.sources import Part, Source
from lehr.data.sources.base import Relabelled, class_metadata
from lehr.predict.predictor import Predictor

PART_ROWS, PART_BYTES = 2048, 64 << 20  # smaller parts are joined, up to one of these


@dataclass(frozen=True)
class Joined:
    """Several parts one after the other, so that many small ones do not become as many files."""

    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def labels(self) -> np.ndarray:
        return np.concatenate([part.labels() for part in self.parts])

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        whole = pa.concat_tables([part.read() for part in self.parts], promote_options="default")
        return whole if rows is None else whole.take(pa.array(rows, pa.int64()))

    def name(self, row: int) -> str:
        for part in self.parts:
            if row < part.rows:
                return part.name(row)
            row -= part.rows
        raise IndexError(row)


def prepare(source: Source, predictor: Predictor) -> Source:
    """The source in parts that are worth a file each, its labels as the predictor counts classes; −1: none of them."""
    table = tuple(predictor.classes.index(name) if name in predictor.classes else -1 for name in source.classes)
    height, width = predictor.size
    most = max(1, min(PART_ROWS, PART_BYTES // (height * width * predictor.channels)))
    parts: list[Part] = []
    waiting: list[Part] = []
    for part in source.parts:
        if waiting and sum(each.rows for each in waiting) + part.rows > most:
            parts, waiting = [*parts, _joined(waiting)], []
        waiting.append(part)
    if waiting:
        parts.append(_joined(waiting))
    if table and table != tuple(range(len(table))):
        parts = [Relabelled(part, table) for part in parts]
    return replace(source, parts=tuple(parts), classes=predictor.classes)


def _joined(parts: list[Part]) -> Part:
    return parts[0] if len(parts) == 1 else Joined(tuple(parts))


@dataclass(frozen=True)
class Predictions:
    """What a predictor says of some rows.

    Attributes:
        probabilities: float32 [rows, classes]; NaN where the image could not be read.
        members: float32 [members, rows, classes], the probabilities of each member; or None.
    """

    probabilities: np.ndarray
    members: np.ndarray | None


@torch.inference_mode()
def predict(predictor: Predictor, pixels: np.ndarray, members: bool = False, batch_size: int = 256) -> Predictions:
    """Maps the predictor, on whatever device it is, over uint8 pixels [rows, height, width, channels]."""
    device = predictor.shares.device
    together: list[Tensor] = []
    alone: list[Tensor] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pixels may be read-only, and are only read
        everything = torch.from_numpy(pixels)
    for batch in everything.split(batch_size) if len(pixels) else ():
        logits = predictor.logits(batch.to(device).permute(0, 3, 1, 2))
        together.append(predictor.combine(logits).cpu())
        if members:
            alone.append(logits.softmax(dim=2).cpu())
    classes = len(predictor.classes)
    none = torch.empty((0, classes))
    each = torch.cat(alone, dim=1).numpy() if alone else np.empty((len(predictor.names), 0, classes), np.float32)
    return Predictions(torch.cat(together or [none]).numpy(), each if members else None)


def predict_decoded(predictor: Predictor, decoded: Decoded, members: bool, batch_size: int) -> Predictions:
    """The predictions for decoded rows, all of them; NaN for those that could not be read."""
    rows, bad = len(decoded.labels), np.array([row for row, _ in decoded.unreadable], np.int64)
    if not len(bad):
        return predict(predictor, decoded.pixels, members, batch_size)
    good = np.setdiff1d(np.arange(rows), bad)
    found = predict(predictor, decoded.pixels[good], members, batch_size)
    whole = np.full((rows, len(predictor.classes)), np.nan, np.float32)
    whole[good] = found.probabilities
    if found.members is None:
        return Predictions(whole, None)
    each = np.full((len(found.members), *whole.shape), np.nan, np.float32)
    each[:, good] = found.members
    return Predictions(whole, each)


def table_of(first: int, part: Part, decoded: Decoded, found: Predictions, predictor: Predictor, mark: str) -> pa.Table:
    """The rows as they are written: `id`, `name`, `label`, `prediction`, `class`, `probabilities`, and the members.

    Labels below zero are unknown and become null; all that is said of an unreadable image is null.

    Args:
        first: the id of the first row.
        mark: kept in the metadata, to tell these rows from those of another prediction.
    """
    labels, bad = decoded.labels, np.isnan(found.probabilities[:, 0])
    best = np.where(bad, 0, found.probabilities.argmax(axis=1)).astype(np.int64)
    columns = {
        "id": pa.array(np.arange(first, first + len(labels))),
        "name": pa.array([part.name(row) for row in range(len(labels))]),
        "label": pa.array(labels, mask=labels < 0),
        "prediction": pa.array(best, mask=bad),
        "class": pa.DictionaryArray.from_arrays(pa.array(best.astype(np.int32), mask=bad), list(predictor.classes)),
        "probabilities": _lists(found.probabilities, bad),
    }
    for name, values in zip(predictor.names, () if found.members is None else found.members, strict=False):
        columns[f"member {name}"] = _lists(values, bad)
    unreadable = json.dumps([[first + row, why] for row, why in decoded.unreadable])
    metadata = {**class_metadata(predictor.classes), "mark": mark, "unreadable": unreadable}
    return pa.table(columns).replace_schema_metadata(metadata)


def _lists(values: np.ndarray, bad: np.ndarray) -> pa.Array:
    """float32 [rows, classes] as a column of lists of that length, null for the bad rows."""
    rows, width = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(bad) if rows and bad.any() else None)
