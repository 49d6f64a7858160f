"""The record of a run as arrays: in order, and each step once."""

from __future__ import annotations

import numpy as np

from lehr.curves.record import last_of_each


def test_the_later_record_of_a_repeated_step_counts() -> None:
    steps = np.array([0, 1, 2, 3, 2, 3, 4])
    values = np.array([10, 11, 12, 13, 22, 23, 24])
    index = last_of_each(steps)
    assert steps[index].tolist() == [0, 1, 2, 3, 4]
    assert values[index].tolist() == [10, 11, 22, 23, 24]


def test_unordered_records_are_sorted_by_step() -> None:
    assert last_of_each(np.array([5, 1, 3])).tolist() == [1, 2, 0]
