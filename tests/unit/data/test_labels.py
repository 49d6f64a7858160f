"""Labels of any form lie in memory, go between processes, and become batches: also as many as each image has."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from lehr.data.dataset import Batch, DataSubset, Images
from lehr.data.labels import Ragged, concatenate, from_column, mark_unreadable, to_column
from lehr.data.targets import RaggedTensor, as_targets, blank, readable, together

LENGTHS = [2, 0, 3, 1, 0, 4]


def boxes() -> Ragged:
    """Six images with 2, 0, 3, 1, 0 and 4 boxes, each with a class and four sides."""
    return Ragged.of(np.arange(50.0).reshape(10, 5), LENGTHS)


LABELS = {
    "a class": np.arange(6),
    "numbers": np.arange(12.0).reshape(6, 2),
    "classes": np.arange(12, dtype=np.int8).reshape(6, 2) % 2,
    "boxes": boxes(),
    "words": Ragged.of(np.arange(10), LENGTHS),
}


def rows_of(labels: object) -> list[object]:
    if isinstance(labels, Ragged):
        return [labels.row(number).tolist() for number in range(len(labels))]
    if isinstance(labels, RaggedTensor):
        return [row.tolist() for row in labels.rows()]
    return labels.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_labels_of_every_form_are_the_same_after_a_table_and_between_processes(labels: np.ndarray | Ragged) -> None:
    table = pa.table({"label": to_column(labels)})
    assert rows_of(from_column(table["label"])) == rows_of(labels)
    part = table.slice(2, 3)
    assert rows_of(from_column(part["label"])) == rows_of(labels)[2:5]
    joined = from_column(pa.concat_tables([part, table])["label"])
    assert rows_of(joined) == rows_of(labels)[2:5] + rows_of(labels)
    assert rows_of(pickle.loads(pickle.dumps(labels, protocol=5))) == rows_of(labels)
    assert rows_of(concatenate([labels[:2], labels[2:]])) == rows_of(labels)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_batches_have_the_labels_of_their_rows_in_any_order(labels: np.ndarray | Ragged) -> None:
    images = Images(np.zeros((6, 2, 2, 1), np.uint8), labels, ("a", "b"))
    rows = DataSubset(images, torch.arange(6))
    batch = rows.gather(torch.tensor([5, 1, 0, 5]))
    wanted = rows_of(labels)
    assert rows_of(batch.targets) == [wanted[5], wanted[1], wanted[0], wanted[5]]
    part = Batch(batch.inputs[1:3], batch.targets[1:3], batch.ids[1:3])  # as gradient accumulation cuts it
    assert rows_of(part.targets) == [wanted[1], wanted[0]]
    assert rows_of(together([part.targets, batch.targets])) == [wanted[k] for k in (1, 0, 5, 1, 0, 5)]
    assert readable(batch.targets).tolist() == [True] * 4
    assert len(blank(rows.labels, 2, torch.device("cpu"))) == 2


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_rows_whose_image_could_not_be_read_are_known(labels: np.ndarray | Ragged) -> None:
    some = labels[np.array([0, 1, 2])]
    mark_unreadable(some, np.array([1]))
    assert readable(as_targets(some)).tolist() == [True, False, True]
    assert readable(as_targets(labels)).all(), "the rows that lie in memory are not changed"


def test_work_on_a_batch_never_reaches_the_shared_memory() -> None:
    shared = boxes()
    rows = DataSubset(Images(np.zeros((6, 2, 2, 1), np.uint8), shared, ()), torch.arange(6))
    rows.gather(torch.arange(6)).targets.values.add_(1)
    assert rows_of(shared) == rows_of(boxes())
