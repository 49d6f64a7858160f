"""Combination, selection and calibration of members: cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lehr.ensembles import (
    best,
    combine,
    combine_cumulatively,
    disagreement,
    equal,
    error,
    fitted,
    greedy,
    last,
    log_loss,
    paired_difference,
)
from lehr.ensembles.combine import CombineBy

BOTH: list[CombineBy] = ["probabilities", "logits"]


def logits_of(*members: list[list[float]]) -> np.ndarray:
    """Logits of members with these probabilities."""
    return np.log(np.array(members))


# Three members, two rows, two classes.
THREE = logits_of([[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.3, 0.7]], [[0.3, 0.7], [0.8, 0.2]])


@pytest.mark.parametrize(
    ("weights", "by", "expected"),
    [
        ([1, 1, 1], "probabilities", [[1.8 / 3, 1.2 / 3], [1.5 / 3, 1.5 / 3]]),
        ([2, 1, 1], "probabilities", [[2.7 / 4, 1.3 / 4], [1.9 / 4, 2.1 / 4]]),
        ([0, 0, 5], "probabilities", [[0.3, 0.7], [0.8, 0.2]]),
        # The mean of logits is the geometric mean of probabilities: odds 9, 1.5 and 3/7 give (9 × 1.5 × 3/7)^(1/3).
        ([1, 1, 1], "logits", [[5.7857 ** (1 / 3), 1.0], [(2 / 3 * 3 / 7 * 4) ** (1 / 3), 1.0]]),
        ([1, 1, 0], "logits", [[13.5**0.5, 1.0], [(2 / 7) ** 0.5, 1.0]]),
    ],
)
def test_three_members_by_hand(weights: list[float], by: CombineBy, expected: list[list[float]]) -> None:
    odds = np.array(expected)
    np.testing.assert_allclose(combine(THREE, np.array(weights), by), odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("copies", [1, 2, 7])
def test_copies_of_one_member_change_nothing(by: CombineBy, copies: int) -> None:
    one = np.random.default_rng(0).normal(0, 5, (1, 40, 6)).astype(np.float32)
    alone = combine(one, np.ones(1), by)
    np.testing.assert_allclose(combine(np.repeat(one, copies, axis=0), np.ones(copies), by), alone, rtol=1e-12)


@pytest.mark.parametrize("by", BOTH)
def test_huge_logits_stay_finite(by: CombineBy) -> None:
    found = combine(np.array([[[1e4, -1e4]], [[-1e4, 1e4]]]), np.array([1.0, 1.0]), by)
    np.testing.assert_allclose(found, [[0.5, 0.5]])
    assert math.isfinite(log_loss(combine(np.array([[[1e4, -1e4]]]), np.ones(1), by), np.array([1])))


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, 1], [1, -1, 1]])
def test_invalid_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="are not valid weights; allowed: one number for each of the 3 members"):
        combine(THREE, np.array(weights), "logits")


def test_error_and_disagreement_by_hand() -> None:
    assert error(combine(THREE, np.array([0, 0, 1]), "logits"), np.array([0, 0])) == 0.5
    np.testing.assert_allclose(disagreement(THREE), [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    assert log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(1.5 * math.log(2))


def test_members_are_added_in_the_given_order() -> None:
    one, two = list(combine_cumulatively(THREE, [2, 0], "probabilities"))
    np.testing.assert_allclose(one, [[0.3, 0.7], [0.8, 0.2]])
    np.testing.assert_allclose(two, [[0.6, 0.4], [0.6, 0.4]])


def test_a_difference_on_the_same_rows_by_hand() -> None:
    """Of four rows the first model is wrong on one, the second on three: a difference of −2 rows in 4."""
    first, second = np.eye(2)[[0, 0, 0, 1]], np.eye(2)[[0, 1, 1, 1]]
    found = paired_difference(first, second, np.zeros(4, int))
    assert found.mean == -0.5
    assert found.standard_error == pytest.approx(0.25)  # the spread of (0, −1, −1, 0) is 1/2, over √4
    assert not found.clear
    assert paired_difference(first, first, np.zeros(4, int)) == type(found)(0.0, 0.0)


# ── selection ───────────────────────────────────────────────────────────────────────────────────────────────────────

# Labels are all 0. Each number is the probability of class 0 by one member, row by row.
LABELS = np.zeros(4, int)


def members_with(*rows: list[float]) -> np.ndarray:
    return np.log(np.stack([np.array([[p, 1 - p] for p in row]) for row in rows]))


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # The first is wrong and confident: two members are better than three.
        (members_with([0.01, 0.01, 0.01, 0.9], [0.9, 0.9, 0.9, 0.4], [0.9, 0.9, 0.4, 0.9]), [0, 1 / 2, 1 / 2]),
        # Each is narrowly wrong on another row: all three combined are right everywhere.
        (members_with([0.4, 0.9, 0.9, 0.9], [0.9, 0.4, 0.9, 0.9], [0.9, 0.9, 0.4, 0.9]), [1 / 3, 1 / 3, 1 / 3]),
        # The last alone is right everywhere, and most confident.
        (members_with([0.4, 0.4, 0.4, 0.4], [0.6, 0.6, 0.6, 0.6], [0.9, 0.9, 0.9, 0.9]), [0, 0, 1]),
        # Two of them are wrong as often as the last alone, with a higher log loss.
        (members_with([0.2, 0.9, 0.9, 0.9], [0.2, 0.2, 0.9, 0.9], [0.3, 0.9, 0.9, 0.9]), [0, 0, 1]),
    ],
)
def test_last_keeps_as_many_members_as_is_best(members: np.ndarray, expected: list[float], by: CombineBy) -> None:
    np.testing.assert_allclose(last(members, LABELS, by), expected)


def test_best_keeps_one_member_and_equal_keeps_all() -> None:
    members = members_with([0.4, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.6], [0.4, 0.4, 0.9, 0.9])
    assert best(members, LABELS, "logits").tolist() == [0, 1, 0]
    assert equal(members, LABELS, "logits").tolist() == pytest.approx([1 / 3] * 3)


def test_greedy_selection_adds_a_strong_member_twice_and_leaves_a_bad_one_out() -> None:
    """By hand: A alone is wrong on row 3 (p = 0.45), C everywhere.

    A, A, B give (0.45 + 0.45 + 0.65) / 3 on row 3 and (0.95 + 0.95 + 0.1) / 3 on row 0, both right; A, B give 0.525.
    """
    members = members_with([0.95, 0.9, 0.9, 0.45], [0.1, 0.9, 0.9, 0.65], [0.05, 0.05, 0.05, 0.05])
    weights = greedy(members, LABELS, "probabilities")
    assert weights[2] == 0
    assert weights[0] > weights[1] > 0
    assert weights.sum() == pytest.approx(1)
    assert error(combine(members, weights, "probabilities"), LABELS) == 0


@pytest.mark.parametrize("by", BOTH)
def test_greedy_selection_is_never_worse_than_the_best_member(by: CombineBy) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 5, 200)
    logits = random.normal(0, 1, (6, 200, 5)) + 1.2 * np.eye(5)[labels] * np.linspace(0.2, 1.5, 6)[:, None, None]
    alone = error(combine(logits, best(logits, labels, by), by), labels)
    assert error(combine(logits, greedy(logits, labels, by), by), labels) <= alone


def test_fitted_weights_by_hand() -> None:
    """Two members: on three rows of four the first is certain and right, on the fourth the second.

    By probabilities the log loss −(3 log w + log(1 − w)) / 4 is lowest at w = 3/4.
    """
    members = np.array([[[0.0, -800.0]] * 3 + [[-800.0, 0.0]], [[-800.0, 0.0]] * 3 + [[0.0, -800.0]]])
    np.testing.assert_allclose(fitted(members, LABELS, "probabilities"), [0.75, 0.25], atol=1e-5)


@pytest.mark.parametrize("by", BOTH)
def test_fitted_weights_have_the_lowest_log_loss_on_a_grid(by: CombineBy) -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 4, 300)
    logits = random.normal(0, 1, (2, 300, 4)) + np.eye(4)[labels] * np.array([2.0, 1.2])[:, None, None]
    found = fitted(logits, labels, by)
    losses = [log_loss(combine(logits, np.array([w, 1 - w]), by), labels) for w in np.linspace(0, 1, 201)]
    assert log_loss(combine(logits, found, by), labels) <= min(losses) + 1e-7
    assert found[0] == pytest.approx(np.linspace(0, 1, 201)[int(np.argmin(losses))], abs=0.01)


def test_a_member_with_random_outputs_gets_almost_no_weight() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 500)
    logits = np.stack([4 * np.eye(4)[labels] + random.normal(0, 1, (500, 4)), random.normal(0, 3, (500, 4))])
    assert fitted(logits, labels, "logits")[1] < 0.05
    assert fitted(logits, labels, "probabilities")[1] < 0.05
