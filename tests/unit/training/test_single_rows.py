"""A batch norm that would get a single row is refused before the first step, with what to type instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import plan_of
from torch import nn

from lehr.errors import JobError
from lehr.job import from_dict
from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.prepare import prepare_model
from lehr.training.setup import check_job
from lehr.training.single_rows import has_single_row, needs_rows


class Flat(nn.Module):
    """A network whose batch norm gets one value per channel from each image."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result


FLAT = f"{__name__}:Flat"


@pytest.mark.parametrize(
    ("rows", "batch_size", "parts", "workers", "found"),
    [
        (32, 8, 1, 1, False),
        (33, 8, 1, 1, True),
        (33, 64, 1, 1, False),
        (1, 8, 1, 1, True),
        (32, 8, 8, 1, True),
        (32, 8, 4, 1, False),
        (35, 8, 2, 1, True),
        (32, 8, 1, 4, False),
        (32, 8, 1, 8, True),
        (34, 8, 1, 2, True),
        (33, 32, 1, 2, True),
    ],
)
def test_every_pass_over_one_row_is_foreseen(rows: int, batch_size: int, parts: int, workers: int, found: bool) -> None:
    assert has_single_row(rows, batch_size, parts, workers) == found


@pytest.mark.parametrize(
    ("changes", "workers", "instead"),
    [
        ({"train__batch_size": 31}, 1, "type: train.batch_size=30"),
        ({"train__gradient_accumulation": 8}, 1, "type: train.gradient_accumulation=4"),
        ({"train__sync_batch_norm": False}, 8, "type: train.sync_batch_norm=true"),
    ],
)
def test_a_single_row_is_refused_with_what_to_type(changes: dict[str, Any], workers: int, instead: str) -> None:
    with pytest.raises(JobError) as refused:
        prepare_model(plan_of(model=FLAT, **changes), Group(0, workers))
    assert "batch norm needs 2 rows" in str(refused.value)
    assert instead in str(refused.value)


def test_what_is_advised_trains(train_tiny: Callable[..., RunFolder]) -> None:
    assert len(train_tiny(model=FLAT, train__batch_size=30).epochs()) == 2


def test_networks_that_can_train_on_one_row_are_let_alone(train_tiny: Callable[..., RunFolder]) -> None:
    run = train_tiny(model={"name": "resnet20"}, train__batch_size=31, train__epochs=1)  # 3 × 3 values per channel
    assert len(run.epochs()) == 1
    assert len(train_tiny(train__batch_size=31).epochs()) == 2  # group norm


def test_looking_changes_nothing() -> None:
    model = Flat(3, 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert needs_rows(model, torch.ones(2, 3, 12, 12))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_more_parts_than_rows_in_a_batch_are_refused() -> None:
    job = from_dict({"train": {"batch_size": 8, "gradient_accumulation": 9}})
    with pytest.raises(JobError, match=r"9 parts of a batch of 8 rows; type: train.gradient_accumulation=8"):
        check_job(job)  # type: ignore[arg-type]
