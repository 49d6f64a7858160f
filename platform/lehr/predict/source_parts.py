"""The source of a prediction, in parts that each become one output file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from lehr.data.labels import Labels, concatenate
from lehr.data.sources import Part, Source
from lehr.data.sources.base import RelabelledPart
from lehr.predict.predictor import Predictor

PART_ROWS, PART_BYTES = 2048, 64 << 20  # smaller parts are joined up to these limits


@dataclass(frozen=True)
class JoinedParts:
    """Consecutive parts as one, so that many small parts do not become as many files."""

    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def labels(self) -> Labels:
        return concatenate([part.labels() for part in self.parts])

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        whole = pa.concat_tables([part.read() for part in self.parts], promote_options="default")
        return whole if rows is None else whole.take(pa.array(rows, pa.int64()))

    def name(self, row: int) -> str:
        for part in self.parts:
            if row < part.rows:
                return part.name(row)
            row -= part.rows
        raise IndexError(row)


def prepare_source(source: Source, predictor: Predictor) -> Source:
    """The same rows in larger parts, with labels that index the predictor's classes; −1 for an unknown class. Of
    numbers
    and of several classes a row, with a column for each of the predictor's names, missing where the source has none."""
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
    if source.kind != "class":
        return replace(source, parts=tuple(parts)).relabel(predictor.classes)
    labels = tuple(predictor.classes.index(name) if name in predictor.classes else -1 for name in source.classes)
    if labels != tuple(range(len(labels))):
        parts = [RelabelledPart(part, labels) for part in parts]
    return replace(source, parts=tuple(parts), classes=predictor.classes)


def _joined(parts: list[Part]) -> Part:
    return parts[0] if len(parts) == 1 else JoinedParts(tuple(parts))
