"""Metrics of a whole split: counted by hand, with classes that have no rows, and in every form that they may return."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lehr.tasks.metrics import METRICS, columns

TRUE = [0, 0, 0, 1, 1, 2, 2, 2]
FOUND = [0, 0, 1, 1, 2, 2, 2, 0]  # class 3 has neither rows nor predictions
TARGETS = torch.tensor(TRUE)
OUTPUTS = F.one_hot(torch.tensor(FOUND), 4).double() + torch.tensor([0.3, 0.2, 0.1, 0.0])


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("per_class_accuracy", {}, [2 / 3, 1 / 2, 2 / 3, math.nan]),
        ("balanced_accuracy", {}, (2 / 3 + 1 / 2 + 2 / 3) / 3),
        ("recall", {"average": "none"}, [2 / 3, 1 / 2, 2 / 3, math.nan]),
        ("recall", {"average": "weighted"}, 5 / 8),
        ("precision", {"average": "none"}, [2 / 3, 1 / 2, 2 / 3, math.nan]),
        ("precision", {"average": "micro"}, 5 / 8),
        ("f1", {"average": "none"}, [4 / 6, 2 / 4, 4 / 6, math.nan]),
        ("f1", {}, (4 / 6 + 2 / 4 + 4 / 6) / 3),
        ("f1", {"average": "micro"}, 5 / 8),
        ("f1", {"average": "weighted"}, (3 * 4 / 6 + 2 * 2 / 4 + 3 * 4 / 6) / 8),
        ("top_k_accuracy", {"k": 1}, 5 / 8),
        ("top_k_accuracy", {"k": 2}, 6 / 8),  # the second highest output is that of class 0, or of 1 where 0 was found
        ("top_k_accuracy", {"k": 4}, 1.0),
    ],
)
def test_a_metric_is_what_is_counted(name: str, options: dict[str, Any], value: object) -> None:
    found = METRICS[name](OUTPUTS, TARGETS, **options)
    torch.testing.assert_close(found, torch.tensor(value, dtype=torch.float64), equal_nan=True)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    """As in scikit-learn and torchmetrics: predictions of it are mistakes, so it is not left out of the mean."""
    outputs = F.one_hot(torch.tensor([0, 1]), 3).double()
    assert METRICS["f1"](outputs, torch.tensor([0, 0])) == (2 / 3 + 0) / 2


CLASSES = ("cat", "dog", "old cow")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0.5, {"m": 0.5}),
        (3, {"m": 3.0}),
        (np.float32(0.5), {"m": 0.5}),
        (torch.tensor(0.5), {"m": 0.5}),
        (torch.tensor([0.5]), {"m": 0.5}),
        (torch.tensor(0.5, requires_grad=True), {"m": 0.5}),
        (torch.tensor([1, 2, 3]), {"m_cat": 1, "m_dog": 2, "m_old cow": 3}),
        (np.array([1.0, 2.0, 3.0]), {"m_cat": 1, "m_dog": 2, "m_old cow": 3}),
        ([1.0, 2.0, 3.0], {"m_cat": 1, "m_dog": 2, "m_old cow": 3}),
        ({"low": 0.1, "high": torch.tensor(0.9)}, {"m_low": 0.1, "m_high": float(torch.tensor(0.9))}),
    ],
)
def test_a_metric_may_return_a_number_one_for_each_class_or_several_by_name(
    value: object, found: dict[str, float]
) -> None:
    assert columns("m", value, CLASSES) == found


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (None, "NoneType"),
        ("0.5", "str"),
        (torch.zeros(2), r"Tensor \[2\]"),
        (torch.zeros(3, 3), r"Tensor \[3, 3\]"),
        (np.zeros(4), r"ndarray \[4\]"),
        ([1.0, 2.0], "list"),
        ({}, "dict"),
        ({"a": [1, 2]}, "dict"),
        ((torch.zeros(2), torch.zeros(3), torch.zeros(1)), "tuple"),
        (1j, "complex"),
    ],
)
def test_anything_else_is_refused(value: object, described: str) -> None:
    with pytest.raises(ValueError, match=rf"returns {described}; allowed: a number, one for each of the 3 classes"):
        columns("m", value, CLASSES)


def test_nan_is_a_value() -> None:
    found = columns("m", torch.tensor([0.5, math.nan, 1.0]), CLASSES)
    assert math.isnan(found["m_dog"])
    assert columns("m", math.nan, CLASSES).keys() == {"m"}
