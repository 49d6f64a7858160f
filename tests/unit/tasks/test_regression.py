"""Regression is told in the unit of its numbers, and measured as torchmetrics measures it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lehr.models.vision import torchvision
from lehr.tasks.base import Learned
from lehr.tasks.losses import Loss
from lehr.tasks.regression import LOSSES, Regression, huber, mae, mse

NAMES = ("age", "height")


def numbers(rows: int = 200, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, generator=random, dtype=torch.float64) * torch.tensor([30.0, 0.2]) + torch.tensor(
        [40.0, 1.7]
    )


def fitted(loss: str = "huber") -> Regression:
    given = Loss(LOSSES[loss], activation="none")
    return Regression.fit(Learned(NAMES, numbers(), given, given))


def test_the_metrics_are_those_of_torchmetrics_in_the_unit_of_the_numbers_for_any_batches() -> None:
    torchvision()  # which torchmetrics imports
    regression = pytest.importorskip("torchmetrics.regression")
    task, targets = fitted(), numbers(137, seed=1)
    outputs = torch.randn(137, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sums: dict[str, Tensor] = {}
    for part in (slice(0, 50), slice(50, 51), slice(51, 137)):
        for name, value in task.sums(outputs[part], targets[part]).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    found = task.metrics({name: value.tolist() for name, value in sums.items()}, 137)
    values = task.values(outputs)
    wanted = {
        "mae": regression.MeanAbsoluteError()(values, targets),
        "rmse": regression.MeanSquaredError(squared=False)(values, targets),
        "r2": regression.R2Score()(values, targets),
        "mae_height": regression.MeanAbsoluteError()(values[:, 1], targets[:, 1]),
        "r2_age": regression.R2Score()(values[:, 0], targets[:, 0]),
    }
    assert {name: pytest.approx(float(value), rel=1e-6) for name, value in wanted.items()} == {
        n: found[n] for n in wanted
    }
    assert set(found) == set(task.metric_names)
    measured = task.measure(values.numpy(), targets.numpy())
    assert measured == pytest.approx({name: found[name] for name in measured}, rel=1e-9)


@pytest.mark.parametrize(("function", "known"), [(mse, 2.0), (mae, 1.0), (huber, 0.75)])
def test_a_loss_is_the_mean_over_the_numbers_of_a_row(function: object, known: float) -> None:
    outputs = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    assert function(outputs, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == pytest.approx([known, 0.0])  # type: ignore[operator]


def test_zeros_are_the_mean_of_the_training_rows_and_cost_what_guessing_it_costs() -> None:
    task = fitted("mse")
    assert task.values(torch.zeros(1, 2, dtype=torch.float64))[0].tolist() == pytest.approx(numbers().mean(0).tolist())
    assert task.chance_loss(torch.float64) == pytest.approx(1.0)  # the variance of what was scaled to one
    assert task.metrics({n: v.tolist() for n, v in task.sums(torch.zeros(200, 2), numbers()).items()}, 200)[
        "r2"
    ] == pytest.approx(0.0, abs=1e-9)


def test_a_row_that_could_not_be_read_counts_for_nothing() -> None:
    task, targets = fitted(), numbers(6, seed=3)
    outputs = torch.zeros(6, 2, dtype=torch.float64)
    known = targets[:4]
    unread = targets.clone()
    unread[4:] = math.nan
    for name, value in task.sums(outputs, unread).items():
        assert torch.equal(value, task.sums(outputs[:4], known)[name]), name


def test_a_finished_model_keeps_the_scale() -> None:
    task = fitted()
    again = Regression.restore(NAMES, task.state(), "none")
    outputs = torch.randn(3, 2)
    assert torch.equal(again.values(outputs), task.values(outputs))


def test_numbers_that_never_differ_are_refused() -> None:
    same = numbers()
    same[:, 1] = 3.0
    with pytest.raises(ValueError, match="height is the same number in all 200 rows"):
        Regression.fit(Learned(NAMES, same))


def test_rows_without_spread_have_no_r2() -> None:
    found = fitted().measure(np.array([[1.0, 2.0]] * 3), np.array([[1.0, 2.5]] * 3))
    assert math.isnan(found["r2"])
    assert found["mae"] == pytest.approx(0.25)
