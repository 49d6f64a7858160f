"""`out_of_fold.parquet`: what was predicted for each row by the network that had not seen it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lehr.data.labels import from_column, is_masks
from lehr.data.sources.base import class_metadata
from lehr.errors import RunError
from lehr.runs import Folder
from lehr.runs.answers import Answers
from lehr.runs.tables import from_parquet
from lehr.tasks.base import Task
from lehr.tasks.classification import Classification
from lehr.tasks.mask_arrays import as_palette_png

FILE = "out_of_fold.parquet"


@dataclass(frozen=True)
class OfFold:
    """What one fold's network says of the rows that it was not trained on.

    Attributes:
        task: what its network learned.
        ids: int64 [rows], their numbers in the source.
        labels: of them.
        values: [rows, outputs], what was predicted: probabilities of a class, numbers in their own unit.
    """

    task: Task[Any]
    ids: np.ndarray
    labels: np.ndarray
    values: np.ndarray


def read_fold(scores: Folder, task: Task[Any]) -> OfFold:
    """What the trial in the folder `scores` recorded of a fold's rows (`outputs/validation.parquet`).

    Raises:
        RunError: it recorded nothing, or the file is damaged.
    """
    try:
        table = from_parquet(scores.read("outputs/validation.parquet"))
        lists: Any = table["logits 0"].combine_chunks()
        outputs = lists.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        ids, labels = table["id"].to_numpy(), np.asarray(from_column(table["label"]))
    except FileNotFoundError as error:
        raise RunError(f"{scores.uri}: the rows of this fold have not been predicted yet") from error
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{scores.uri}/outputs/validation.parquet: is damaged: {error}") from error
    values = _probabilities(outputs) if isinstance(task, Classification) else outputs
    if task.labels == "mask":
        values = values.reshape(labels.shape)
    return OfFold(task, ids, labels, values)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of logits [rows, classes]."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def table_of(folds: Sequence[OfFold], name: Callable[[int], str]) -> pa.Table:
    """Every row once, in the order of the source: `id`, `name`, `fold` (from 1), `label`, and the columns of the task,
    as the files of a prediction have them.

    Args:
        name: where a person finds the row of this number.

    Raises:
        RunError: a row is in two folds.
    """
    tables = []
    for number, fold in enumerate(folds, 1):
        readable = np.zeros(len(fold.ids), bool)
        columns: dict[str, pa.Array[Any]] = {
            "id": pa.array(fold.ids),
            "name": pa.array([name(int(each)) for each in fold.ids], pa.string()),
            "fold": pa.array(np.full(len(fold.ids), number)),
            "label": _labels(fold.labels),
            **fold.task.columns(fold.values, readable),
        }
        tables.append(pa.table(columns))
    whole = pa.concat_tables(tables).combine_chunks().sort_by("id")
    ids = whole["id"].to_numpy()
    if len(np.unique(ids)) < len(ids):
        raise RunError("a row is in two folds: the data changed while the folds were trained; start over with --fresh")
    names = folds[0].task.names
    return whole.replace_schema_metadata(class_metadata(names))


def _labels(labels: np.ndarray) -> pa.Array[Any]:
    if is_masks(labels):
        return pa.array(list(map(as_palette_png, labels)), pa.large_binary())
    return pa.array(labels) if labels.ndim == 1 else pa.array(list(labels))


def write(folder: Folder, table: pa.Table) -> None:
    """Replaces out_of_fold.parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    folder.write(FILE, buffer.getvalue())


def measured(folds: Sequence[OfFold]) -> dict[str, float]:
    """What the task measures over the rows of all folds; of classes the share that is right.

    Empty for a task that ranks rows, or chooses a threshold for each network: values of different networks are not to
    be ranked together (Forman and Scholz, "Apples-to-apples in cross-validation studies", 2010).
    """
    task = folds[0].task
    labels, values = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("labels", "values"))
    if isinstance(task, Classification):
        return {"accuracy": float((values.argmax(axis=1) == labels).mean())}
    return {} if task.ranks or task.chooses else dict(task.measure(values, labels))


def all_answers(folders: Sequence[Folder]) -> Answers | None:
    """The answers of all folds with their pictures, for the page; None where a fold has none."""
    each = [found for folder in folders if (found := Answers.read(folder))]
    if len(each) < len(folders) or len({answers.classes for answers in each}) > 1:
        return None
    starts = np.cumsum([0, *(len(answers.rows) for answers in each)])
    joined = {
        name: np.concatenate([getattr(answers, name) for answers in each])
        for name in ("rows", "labels", "predicted", "probability")
    }
    pictures = {
        int(start) + at: png
        for start, answers in zip(starts, each, strict=False)
        for at, png in answers.pictures.items()
    }
    return Answers(each[0].classes, **joined, pictures=pictures)
