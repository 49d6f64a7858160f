"""What a user's function returns in place of a Ray Dataset is refused with what to write instead."""

from __future__ import annotations

import pytest
import ray
from torch.utils.data import Dataset

from lehr.data.ray_data import ROWS_OF_TORCH, not_a_dataset


class Photographs(Dataset[tuple[int, int]]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> tuple[int, int]:
        return 0, 1


class Rows:
    def __init__(self, *columns: str) -> None:
        self._columns = list(columns)

    def columns(self) -> list[str]:
        if self._columns == ["broken"]:
            raise ray.exceptions.RayError("To change retry attempts …\n  at a\nValueError: 3 channels")
        return self._columns


def test_a_torch_dataset_is_told_how_to_become_one() -> None:
    told = not_a_dataset(Photographs(), "mine:photographs")
    assert told.startswith("mine:photographs returned a Photographs; allowed: a ray.data.Dataset; of a torch Dataset, ")
    assert told.endswith(ROWS_OF_TORCH)
    assert not_a_dataset(3, "mine:three") == "mine:three returned a int; allowed: a ray.data.Dataset"


def test_missing_columns_are_named_before_a_task_fails_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.data.Dataset", Rows)
    assert not_a_dataset(Rows("image", "label", "more"), "mine:rows") == ""
    assert not_a_dataset(Rows("image"), "mine:rows") == "the dataset of mine:rows has no column label: it has image"
    told = not_a_dataset(Rows("item"), "mine:rows")  # what ray.data.from_torch makes
    assert "has no column image and no column label: it has item; instead of ray.data.from_torch, write: " in told
    assert (
        not_a_dataset(Rows("broken"), "mine:rows") == "the dataset of mine:rows cannot be read: ValueError: 3 channels"
    )
