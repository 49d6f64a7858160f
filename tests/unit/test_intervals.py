"""A measured share is told with its interval, and what rows cannot tell apart is not told apart."""

from __future__ import annotations

import pytest

from lehr.formatting import format_metric
from lehr.intervals import in_words, interval, no_better, overlap, unlike


@pytest.mark.parametrize(
    ("share", "rows", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [(81 / 263, 263, 0.2553, 0.3662), (15 / 148, 148, 0.0624, 0.1605), (0.0, 20, 0.0, 0.1611),
     (1 / 29, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_is_that_of_wilson(share: float, rows: int, low: float, high: float) -> None:
    assert interval(share, rows) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 20, 38, 77, 5000])
def test_no_interval_is_empty_or_leaves_what_a_share_can_be(rows: int) -> None:
    (low, high), (none, some) = interval(1.0, rows), interval(0.0, rows)
    assert 0 < low < high == 1
    assert 0 == none < some < 1


@pytest.mark.parametrize(
    ("share", "rows", "words"),
    [
        (0.542, 180, "54.2% ± 7.2"),
        (0.98, 360, "98.0% ± 1.5"),
        (0.7613, 10_000, "76.1% ± 0.8"),
        (0.76134, 10_000_000, "76.13% ± 0.03"),
        (1.0, 20, "100.0% (83.9 to 100.0)"),
        (0.0, 2, "0.0% (0.0 to 65.8)"),
        (0.5, None, "50.00%"),
        (0.5, 0, "50.00%"),
        (float("nan"), 20, "nan"),
        (5.0, 20, "500.00%"),
        (1e300, 20, "1e+300"),
    ],
)
def test_an_accuracy_is_told_with_its_interval(share: float, rows: int | None, words: str) -> None:
    assert in_words(share, rows) == words


def test_only_a_share_of_rows_gets_the_interval_of_one() -> None:
    rows = {"validation": 180, "test": 20}
    assert format_metric(0.542, "averaged_validation_accuracy", rows) == "54.2% ± 7.2"
    assert format_metric(1.0, "test_accuracy", rows) == "100.0% (83.9 to 100.0)"
    assert format_metric(0.542, "validation_balanced_accuracy", rows) == "54.20%"
    assert format_metric(0.542, "validation_loss", rows) == "0.5420"
    assert format_metric(0.542, "validation_accuracy") == "54.20%"


def test_few_rows_tell_two_accuracies_apart_only_where_they_can() -> None:
    assert overlap(0.80, 0.85, 100)
    assert not overlap(0.80, 0.85, 5000)
    assert overlap(1.0, 0.5, 2)
    assert not overlap(0.2, 0.9, 20, 30)


def test_models_on_the_same_rows_are_compared_row_by_row() -> None:
    assert not unlike(0, 0)
    assert not unlike(0, 5)  # p = 0.0625
    assert unlike(0, 6)  # p = 0.031
    assert not unlike(40, 55)
    assert unlike(4000, 4400)


def test_not_significantly_better_is_not_no_better() -> None:
    assert not no_better(1.0, 0.5, 2)  # two rows show nothing
    assert not no_better(0.5, 0.5, 10)
    assert no_better(0.5, 0.5, 400)
    assert no_better(0.1, 0.1, 360)
    assert not no_better(0.2, 0.1, 360)  # it is better
    assert not no_better(0.1, 0.1, 0)
