"""Each loss is the formula of its paper, in each form of its targets; rows that cannot be read count nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.losses import LOSSES, UNREADABLE, Loss, bce, cross_entropy, focal, logits, poly

CLASSES = 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)


def some(rows: int = 9) -> tuple[Tensor, Tensor]:
    outputs = torch.randn(rows, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    return outputs, torch.arange(rows) % CLASSES


def p(outputs: Tensor, row: int, c: int) -> float:
    return math.exp(float(outputs[row, c])) / sum(math.exp(float(z)) for z in outputs[row])


def sigmoid(z: Tensor) -> float:
    return 1 / (1 + math.exp(-float(z)))


def by_hand(name: str, outputs: Tensor, row: int, y: int, smoothing: float, weights: Tensor | None) -> float:
    """The formula over one row, in Python's own arithmetic."""
    t = [(1 - smoothing) * (c == y) + smoothing / CLASSES for c in range(CLASSES)]
    w = [1.0] * CLASSES if weights is None else weights.tolist()
    of_row = sum(t_c * w_c for t_c, w_c in zip([float(c == y) for c in range(CLASSES)], w, strict=True))
    shares = [p(outputs, row, c) for c in range(CLASSES)]
    if name == "cross_entropy":
        return -sum(w[c] * t[c] * math.log(shares[c]) for c in range(CLASSES))
    if name == "focal":
        return -sum(w[c] * t[c] * (1 - shares[c]) ** 1.5 * math.log(shares[c]) for c in range(CLASSES))
    if name == "bce":
        s = [sigmoid(z) for z in outputs[row]]
        each = [2.0 * t[c] * math.log(s[c]) + (1 - t[c]) * math.log(1 - s[c]) for c in range(CLASSES)]
        return -of_row * sum(each) / CLASSES
    whole = by_hand("cross_entropy", outputs, row, y, smoothing, weights)
    return whole + of_row * 2.0 * (1 - sum(a * b for a, b in zip(t, shares, strict=True)))


OPTIONS: dict[str, dict[str, Any]] = {"focal": {"gamma": 1.5}, "bce": {"pos_weight": 2.0}, "poly": {"epsilon": 2.0}}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name: str, smoothing: float, weights: Tensor | None) -> None:
    outputs, targets = some()
    found = LOSSES[name](outputs, targets, label_smoothing=smoothing, class_weights=weights, **OPTIONS.get(name, {}))
    wanted = [by_hand(name, outputs, row, int(y), smoothing, weights) for row, y in enumerate(targets)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_shares_of_one_class_are_that_class(name: str) -> None:
    outputs, targets = some()
    options = {"label_smoothing": 0.1, "class_weights": WEIGHTS, **OPTIONS.get(name, {})}
    one_hot = F.one_hot(targets, CLASSES).double()
    torch.testing.assert_close(LOSSES[name](outputs, targets, **options), LOSSES[name](outputs, one_hot, **options))


def test_without_their_own_term_focal_and_poly_are_cross_entropy() -> None:
    outputs, targets = some()
    torch.testing.assert_close(focal(outputs, targets, gamma=0.0), cross_entropy(outputs, targets))
    torch.testing.assert_close(poly(outputs, targets, epsilon=0.0), cross_entropy(outputs, targets))


def test_of_mixed_images_bce_counts_the_classes_above_the_threshold() -> None:
    outputs, _ = some(1)
    mixed = torch.tensor([[0.7, 0.3, 0.0, 0.0]], dtype=torch.float64)
    both = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert bce(outputs, mixed, target_threshold=0.2).equal(bce(outputs, both))
    assert bce(outputs, mixed, target_threshold=0.5).equal(bce(outputs, torch.tensor([0])))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_of_focal_loss_is_finite_where_the_network_is_sure(gamma: float, dtype: torch.dtype) -> None:
    outputs = torch.tensor([[200.0, 0.0], [0.0, 200.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    focal(outputs, torch.tensor([0, 0, 1]), gamma=gamma).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def function_of(loss: Loss) -> Callable[..., Tensor]:
    return loss.function


def mean_focal(outputs: Tensor, targets: Tensor) -> Tensor:
    assert len(outputs)  # as a mean over nothing would be NaN
    return focal(outputs, targets).mean()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "loss", [*(Loss(f) for f in LOSSES.values()), Loss(focal, own=True), Loss(mean_focal, True, True)]
)
def test_rows_that_could_not_be_read_count_nothing(loss: Loss, mixed: bool) -> None:
    outputs, targets = some()
    unread = torch.tensor([0, 4, 8])
    known = torch.ones(9, dtype=torch.bool).index_fill(0, unread, False)
    all_rows, fewer = outputs.clone().requires_grad_(True), outputs[known].clone().requires_grad_(True)
    given = targets.index_fill(0, unread, UNREADABLE)
    if mixed:
        given = F.one_hot(targets, CLASSES).double() * known[:, None]
        loss = loss if loss.own else Loss(partial(function_of(loss), label_smoothing=0.1))
    whole = loss(all_rows, given)
    part = loss(fewer, given[known])
    whole.backward()
    part.backward()
    torch.testing.assert_close(whole, part)
    assert all_rows.grad is not None
    assert fewer.grad is not None
    torch.testing.assert_close(all_rows.grad[known], fewer.grad)
    assert not all_rows.grad[unread].any()


@pytest.mark.parametrize("loss", [Loss(), Loss(focal, own=True), Loss(mean_focal, mean=True, own=True)])
@pytest.mark.parametrize("targets", [torch.zeros(0, dtype=torch.int64), torch.full((3,), UNREADABLE)])
def test_no_rows_are_a_loss_of_zero_with_a_gradient_of_zero(loss: Loss, targets: Tensor) -> None:
    outputs = torch.randn(len(targets), CLASSES, requires_grad=True)
    found = loss(outputs, targets)
    found.backward()
    assert found == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_the_probabilities_of_one_against_all_are_its_sigmoids_and_sum_to_one() -> None:
    outputs, _ = some()
    found = logits(outputs, "sigmoid").softmax(dim=1)
    sigmoids = outputs.sigmoid()
    torch.testing.assert_close(found, sigmoids / sigmoids.sum(dim=1, keepdim=True))
    torch.testing.assert_close(logits(sigmoids, "none").softmax(dim=1), found)
