"""Calibration: whether a model that claims 80% confidence is right in 80 of 100 cases."""

from __future__ import annotations

import numpy as np
import pytest

from lehr.calibration import calibration_error, error_by_chance, reliability


def test_by_hand() -> None:
    """Two bins of five rows: 0.5–0.6 with 0.55 and two right, 0.9–1 with 0.95 and all right.

    ECE = 5/10 × |0.4 − 0.55| + 5/10 × |1 − 0.95| = 0.1.
    """
    confidence = np.array([0.55] * 5 + [0.95] * 5)
    right = np.array([True, True, False, False, False] + [True] * 5)
    low, high = bins = reliability(confidence, right, bins=10)
    assert (low.rows, low.accuracy, high.rows, high.accuracy) == (5, 0.4, 5, 1.0)
    assert (low.confidence, high.confidence) == pytest.approx((0.55, 0.95))
    assert (low.low, low.high) == (0.5, 0.6)
    assert calibration_error(bins) == pytest.approx(0.1)


@pytest.mark.parametrize("confidence", [0.5, 1.0])
def test_confidences_on_the_edges_belong_to_a_bin(confidence: float) -> None:
    (only,) = reliability(np.array([confidence]), np.array([True]))
    assert only.rows == 1
    assert only.low < confidence <= only.high


@pytest.mark.parametrize("rows", [200, 2000])
def test_what_chance_makes_is_what_a_calibrated_model_shows(rows: int) -> None:
    draw = np.random.default_rng(0)
    shown, told = [], []
    for _ in range(300):
        confidence = draw.uniform(0.3, 1.0, rows)
        bins = reliability(confidence, draw.uniform(size=rows) < confidence)
        shown.append(calibration_error(bins))
        told.append(error_by_chance(bins))
    assert np.mean(told) == pytest.approx(np.mean(shown), rel=0.1)
