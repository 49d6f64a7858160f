"""`answers.parquet`: what the model of a training says of each validation row, with pictures of a few."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.errors import RunError, StorageError
from lehr.runs.storage import Folder
from lehr.runs.tables import MOST_BYTES, from_parquet

NAME = "answers.parquet"
_TYPES = {"row": np.int64, "label": np.int32, "predicted": np.int32, "probability": np.float32}


@dataclass(frozen=True)
class Answers:
    """What the model that was kept says of each readable row of the validation split.

    Attributes:
        classes: the class names, in label order.
        rows: int64 [n], the ids of the rows.
        labels, predicted: int32 [n], the true class and the most probable one.
        probability: float32 [n], how probable the model takes its own answer.
        pictures: some rows as PNG files, by their position in the arrays.
    """

    classes: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    pictures: dict[int, bytes] = field(default_factory=dict)

    def mistakes(self, most: int) -> list[int]:
        """The positions of wrong answers, those that the model is surest of first."""
        wrong = np.flatnonzero(self.labels != self.predicted)
        return [int(each) for each in wrong[np.argsort(-self.probability[wrong], kind="stable")][:most]]

    def confusion(self) -> np.ndarray:
        """int64 [classes, classes]: the rows by true class (first) and answer (second)."""
        classes = len(self.classes)
        both = self.labels.astype(np.int64) * classes + self.predicted
        return np.bincount(both, minlength=classes**2).reshape(classes, classes)

    @classmethod
    def read(cls, folder: Folder) -> Answers | None:
        """Those of the run in `folder`; None where there are none, or they are damaged."""
        try:
            table = from_parquet(folder.read(NAME, MOST_BYTES))
            columns = {name: table[name].to_numpy().astype(kind) for name, kind in _TYPES.items()}
            classes = tuple(map(str, json.loads((table.schema.metadata or {})[b"classes"])))
            pictures = {at: each for at, each in enumerate(table["picture"].to_pylist()) if isinstance(each, bytes)}
        except (FileNotFoundError, RunError, StorageError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None
        found = cls(classes, columns["row"], columns["label"], columns["predicted"], columns["probability"], pictures)
        known = all(
            len(each) and each.min() >= 0 and each.max() < len(classes) for each in (found.labels, found.predicted)
        )
        return found if known else None

    def write(self, folder: Folder) -> None:
        """Replaces answers.parquet."""
        columns = zip(_TYPES.items(), (self.rows, self.labels, self.predicted, self.probability), strict=True)
        table: dict[str, pa.Array[Any]] = {name: pa.array(values.astype(kind)) for (name, kind), values in columns}
        table["picture"] = pa.array([self.pictures.get(at) for at in range(len(self.rows))], pa.binary())
        buffer = io.BytesIO()
        named = pa.table(table).replace_schema_metadata({"classes": json.dumps(self.classes)})
        pq.write_table(named, buffer, write_page_checksum=True)
        folder.write(NAME, buffer.getvalue())
