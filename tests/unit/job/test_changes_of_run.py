"""Which changes make a job another run, and which leave a finished run something to do."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import changes_of_run, extends, from_dict, to_dict
from lehr.job.compare import MAY_CHANGE

SEARCH = {"kind": "search", "method": "random", "space": {"optimizer.lr": [0.1, 0.2]}, "budget": 10}


def job(**fields: Any) -> dict[str, Any]:
    return to_dict(from_dict({"name": "mine", **fields}))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (job(), job(), set()),
        (job(), job(name="other", notes="x", storage="s3://b/r", workers=4), set()),
        (job(), job(train={"early_stopping": {"patience": 3}}), {"train.early_stopping"}),
        (
            job(train={"early_stopping": {"patience": 5}}),
            job(train={"early_stopping": {"patience": 3}, "checkpoint": {"every": "2ep"}}),
            set(),
        ),
        (job(), job(optimizer={"lr": 0.5}, workers=2), {"optimizer.lr"}),
        (job(train={"epochs": 20}), job(train={"epochs": 40}), {"train.epochs"}),
        (job(**SEARCH), job(**{**SEARCH, "budget": 20}), set()),
    ],
)
def test_all_changes_but_the_allowed_ones_make_another_run(
    old: dict[str, Any], new: dict[str, Any], changed: set[str]
) -> None:
    assert set(changes_of_run(old, new)) == changed


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        (job(train={"epochs": 20}), job(train={"epochs": 40}), True),
        (job(train={"epochs": 20}), job(train={"epochs": 10}), False),
        (job(train={"epochs": 20}), job(train={"epochs": 20}, notes="x"), False),
        (job(**SEARCH), job(**{**SEARCH, "budget": 20}), True),
        (job(**SEARCH), job(**SEARCH), False),
    ],
)
def test_more_epochs_or_another_budget_extend_a_finished_run(
    old: dict[str, Any], new: dict[str, Any], more: bool
) -> None:
    assert extends(old, new) is more


def test_a_field_whose_name_only_starts_alike_is_not_allowed() -> None:
    assert set(changes_of_run({"named": 1, "workers": {"count": 1}}, {"named": 2, "workers": {"count": 2}})) == {
        "named"
    }
    assert "name" in MAY_CHANGE
