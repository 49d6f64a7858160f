"""What a user's function returns is read as the library that made it means it, or refused in one sentence."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from lehr.data.pixels import PixelFormat
from lehr.data.reading import read
from lehr.data.sources.base import Source
from lehr.data.sources.returned import Called, returned_source
from lehr.data.sources.tabular import Wanted
from lehr.errors import JobError, LehrError
from lehr.own_code import OwnCodeError

ROWS = 600
X = np.random.default_rng(3).integers(0, 255, (ROWS, 6, 6, 3), dtype=np.uint8)
Y = np.arange(ROWS) % 3
CALLS: list[int] = []


class Indexed(Dataset[Any]):
    """As torchvision's data sets: an image as a tensor with channels first, and a number."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> Any:
        CALLS.append(row)
        if row == self.broken:
            raise OSError("no such file: 7.png")
        return torch.from_numpy(X[row]).permute(2, 0, 1).float() / 255, int(Y[row])


class WithTargets(Indexed):
    targets = Y.tolist()


class Iterated(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return ((Image.fromarray(image), torch.tensor(label)) for image, label in zip(X, Y, strict=True))


def indexed() -> Any:
    return Indexed()


def source_of(returned: Any, kind: Any = "class", function: Any = indexed) -> Source:
    def refuse(field: str, what: str) -> JobError:
        return JobError(what, field=field)

    return returned_source(returned, Called(function, "mine:rows"), Wanted(kind), refuse)


@pytest.mark.parametrize(
    "returned",
    [
        Indexed(),
        WithTargets(),
        Iterated(),
        [{"image": image, "label": label} for image, label in zip(X, Y, strict=True)],
        [(Image.fromarray(image), label) for image, label in zip(X, Y, strict=True)],
        (X, Y),
        pd.DataFrame({"image": X.tolist(), "label": Y}),
        pa.table({"img": pa.array(X.tolist()), "label": pa.array(Y)}),
    ],
    ids=["indexed", "targets", "iterated", "dicts", "pairs", "arrays", "pandas", "arrow"],
)
def test_rows_are_those_that_were_returned_and_any_can_be_read_alone(returned: Any) -> None:
    source = source_of(returned)
    assert source.classes == ("0", "1", "2")
    whole = read(source, PixelFormat())
    assert np.array_equal(whole.pixels, X)
    assert np.array_equal(whole.labels, Y)
    part = pickle.loads(pickle.dumps(source.parts[1]))
    some = part.read([5, 2])
    assert [
        np.frombuffer(each.as_py(), some["dtype"][0].as_py() if "dtype" in some.schema.names else np.uint8).size
        for each in some["image"]
    ] == [108, 108]
    assert some["label"].to_pylist() == Y[[517, 514]].tolist()


class Hub:
    """What lehr asks of a `datasets.Dataset` 5.2: its features, and rows as Arrow has them."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.asked = table, []  # type: ignore[var-annotated]

    @property
    def features(self) -> Any:
        return type("Features", (), {"arrow_schema": self.table.schema})

    def select_columns(self, names: list[str]) -> Hub:
        return Hub(self.table.select(names))

    def with_format(self, name: str) -> Hub:
        assert name == "arrow"
        return self

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: list[int]) -> pa.Table:
        return self.table.take(pa.array(rows, pa.int64()))


def test_a_dataset_of_hugging_face_is_read_as_it_is_stored() -> None:
    file = io.BytesIO()
    Image.fromarray(X[0]).save(file, "PNG")
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    images = [{"bytes": file.getvalue(), "path": None}] * ROWS
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": images, "label": pa.array(Y)}).replace_schema_metadata(told)
    source = source_of(Hub(table))
    assert (source.classes, source.form) == (("a", "b", "c"), "a Dataset of Hugging Face")
    assert source.parts[1].read([5, 2])["label"].to_pylist() == Y[[517, 514]].tolist()
    assert np.array_equal(read(source, PixelFormat()).pixels[-1], X[0])


def test_only_the_rows_that_are_asked_for_are_made() -> None:
    source = source_of(WithTargets())
    CALLS.clear()
    source.parts[1].read([5, 2])
    assert CALLS == [517, 514]


def test_splits_are_a_dict() -> None:
    source = source_of({"train": Indexed(), "val": (X[:9], Y[:9])})
    assert source.rows == ROWS
    assert source.other_splits["validation"].rows == 9
    assert "allowed: one of them called train" in _refused({"val": Indexed()})


def test_names_lists_and_numbers_are_labels() -> None:
    rows = [{"image": image, "label": "ab"[row % 2]} for row, image in enumerate(X[:6])]
    assert source_of(rows).classes == ("a", "b")
    several = source_of([{"image": X[0], "labels": ["a", "b"]}, {"image": X[1], "labels": []}], "classes")
    assert several.labels().tolist() == [[1, 1], [0, 0]]
    numbers = source_of([(X[0], 1.5), (X[1], 2.5)], "numbers")
    assert numbers.labels().tolist() == [[1.5], [2.5]]
    assert "type task=regression" in _refused([(X[0], 1.5), (X[1], 2.5)])


def test_other_rows_than_before_are_noticed() -> None:
    class Changing(Indexed):
        first = True

        def __getitem__(self, row: int) -> Any:
            image, label = super().__getitem__(row)
            return image, label if self.first else label + 1

    rows = Changing()
    source = source_of(rows)
    rows.first = False
    with pytest.raises(LehrError, match="had the label 1 when the job started, and now has 2; allowed: a"):
        source.parts[0].read([1])


def test_an_error_in_a_row_names_the_users_line_and_the_row() -> None:
    with pytest.raises(OwnCodeError, match=r"mine:rows failed: OSError: no such file: 7.png at .*row: 7"):
        source_of(Indexed(broken=7))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (3, "returned a int; allowed: a torch Dataset, a datasets.Dataset, a ray.data.Dataset, a list of"),
        ([], "returned no rows"),
        ([3], r'rows such as a int \(row 0\); allowed: \(image, label\), or {"image": …, "label": …}'),
        ([{"file": 1}], "rows with file, and none is called image"),
        ([("a.png", 1)], "a str as the image of row 0; allowed: a PIL image, an array, a tensor, bytes"),
        ([(X[0, :, :, None, None], 1)], "an image in row 0 that cannot be read"),
        ((X, Y[:5]), "600 images and 5 labels; allowed: as many"),
        ([{"image": X[0], "label": 1}, {"image": X[0], "label": "a"}], "labels of several types"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_sentence(returned: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        source_of(returned)


def _refused(returned: Any) -> str:
    with pytest.raises(JobError) as error:
        source_of(returned)
    return str(error.value)
