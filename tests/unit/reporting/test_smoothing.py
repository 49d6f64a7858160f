"""Smoothing follows a curve as the eye would, also at its ends, across gaps, and with very few points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehr.reporting.smoothing import moving_average, slope, smooth, thin


def test_a_straight_line_stays_itself_up_to_both_ends() -> None:
    x = np.arange(50.0)
    assert smooth(x, 3 * x + 2, x, 9.0) == pytest.approx(3 * x + 2, abs=1e-9)


def test_inside_the_curve_it_is_the_plain_average_of_a_symmetric_window() -> None:
    x, y = np.arange(30.0), np.random.default_rng(0).random(30)
    assert smooth(x, y, np.array([10.0]), 4.0)[0] == pytest.approx(y[8:13].mean())


def test_at_the_end_it_does_not_lag_as_a_one_sided_average_would() -> None:
    x = np.linspace(0, 1, 200)
    y = np.exp(-3 * x)
    end = smooth(x, y, x[-1:], 0.2)[0]
    lagging = y[x >= 0.9].mean()
    assert abs(end - y[-1]) < abs(lagging - y[-1]) / 5


def test_values_that_are_not_finite_are_left_out() -> None:
    x, y = np.arange(10.0), np.full(10, 5.0)
    y[[0, 4, 9]] = np.nan, np.inf, -np.inf
    assert smooth(x, y, x, 3.0) == pytest.approx(np.full(10, 5.0))


def test_a_window_without_a_finite_value_is_nan() -> None:
    x = np.arange(10.0)
    y = np.where(x < 5, 1.0, np.nan)
    result = smooth(x, y, np.array([2.0, 8.5]), 2.0)
    assert result[0] == 1.0
    assert np.isnan(result[1])


def test_one_point_is_its_own_average() -> None:
    at, line = moving_average(np.array([3.0]), np.array([7.0]), 1.0)
    assert (at.tolist(), line.tolist()) == ([3.0], [7.0])


def test_no_points_give_no_line() -> None:
    at, line = moving_average(np.empty(0), np.empty(0), 1.0)
    assert len(at) == len(line) == 0


@pytest.mark.parametrize("points", [6, 1000])
def test_nothing_is_drawn_across_a_gap(points: int) -> None:
    x = np.concatenate([np.linspace(0, 1, points), np.linspace(9, 10, points)])
    at, line = moving_average(x, np.ones(len(x)), 1.0)
    assert np.isnan(line[(at > 1.6) & (at < 8.4)]).all()
    assert len(line[(at > 1.6) & (at < 8.4)]) > 0
    assert np.isfinite(line[(at <= 1) | (at >= 9)]).all()


def test_an_enormous_spike_does_not_affect_later_values() -> None:
    x = np.arange(1000.0)
    y = np.ones(1000)
    y[100] = 1e30
    assert smooth(x, y, np.array([900.0]), 20.0)[0] == 1.0


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60), st.floats(0.5, 30))
def test_the_line_stays_within_its_window_so_a_positive_curve_stays_positive(values: list[float], span: float) -> None:
    y = np.array(values)
    x = np.arange(len(y), dtype=np.float64)
    line = smooth(x, y, x, span)
    for i in range(len(y)):
        window = y[np.abs(x - x[i]) <= span / 2]
        assert window.min() <= line[i] <= window.max()


def test_thinning_keeps_every_spike_and_the_limit() -> None:
    x = np.arange(100_000.0)
    y = np.random.default_rng(0).random(100_000)
    y[[17, 40_321, 99_998]] = 50.0, -50.0, 60.0
    index = thin(x, y, 3000)
    assert len(index) <= 3000
    assert {17, 40_321, 99_998} <= set(index.tolist())
    assert (np.diff(index) > 0).all()


def test_thinning_leaves_a_short_curve_alone() -> None:
    assert thin(np.arange(10.0), np.ones(10), 10).tolist() == list(range(10))


def test_thinning_a_curve_of_nothing_but_nan_still_gives_points() -> None:
    assert 0 < len(thin(np.arange(100.0), np.full(100, np.nan), 30)) <= 30


def test_the_slope_is_that_of_the_finite_points() -> None:
    x = np.arange(10.0)
    y = 2 * x
    y[3] = np.nan
    assert slope(x, y) == pytest.approx(2.0)
    assert slope(x[:1], y[:1]) == 0.0
