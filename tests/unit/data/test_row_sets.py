"""Rows drawn by comparing hashes with a threshold are those of the stored order; sets of rows take a bit a row."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from lehr.data import row_sets
from lehr.data.randomness import key, permutation
from lehr.data.row_sets import RowSet, first_of_order


@pytest.mark.parametrize("rows", [1, 5, 4096, 70_000])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.2, 0.5, 1.0])
def test_what_is_drawn_is_the_beginning_of_the_stored_order(rows: int, share: float) -> None:
    labels = np.random.default_rng(0).integers(-1, 6, rows)
    stream = key(3, "split")
    counts = np.round(np.bincount(labels[labels >= 0], minlength=6) * share).astype(np.int64)
    expected, order = np.zeros(rows, bool), permutation(stream, rows).numpy()
    for label, count in enumerate(counts):
        expected[order[labels[order] == label][:count]] = True
    found = first_of_order(stream, rows, counts, lambda start, end: labels[start:end])
    assert np.array_equal(found.ids(), np.flatnonzero(expected))
    assert np.array_equal(found.others().ids(), np.flatnonzero(~expected))
    count = round(share * rows)
    whole = first_of_order(stream, rows, np.array([count]))
    assert np.array_equal(whole.ids(), np.sort(order[:count]))


def test_a_threshold_outside_its_band_is_found_in_a_wider_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    within = row_sets._thresholds_within

    def narrow(*arguments: object) -> object:
        tried.append(arguments)
        return None if len(tried) == 1 else within(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(row_sets, "_thresholds_within", narrow)
    found = first_of_order(7, 1000, np.array([100]))
    assert len(tried) == 2
    assert np.array_equal(found.ids(), np.sort(permutation(7, 1000).numpy()[:100]))


def _between(mask: np.ndarray, start: int, end: int) -> np.ndarray:
    found: np.ndarray = mask[start:end]
    return found


def test_a_set_answers_as_the_list_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    for rows in (1, 9, 4096, 10_001):
        mask = draw.random(rows) < 0.3
        ids = np.flatnonzero(mask)
        asked = partial(_between, mask)
        for some in (RowSet.from_ids(rows, draw.permutation(ids)), RowSet.where(rows, asked)):
            assert len(some) == len(ids)
            assert np.array_equal(some.ids(), ids)
            places = draw.integers(0, max(1, len(ids)), 20 if len(ids) else 0)
            assert np.array_equal(some.at(places), ids[places])
            edges = np.sort(draw.integers(0, rows + 1, 7))
            assert np.array_equal(some.before(edges), [mask[:edge].sum() for edge in edges])
            assert np.array_equal(some.between(edges[0], edges[1]), ids[(ids >= edges[0]) & (ids < edges[1])])
        everything = RowSet(rows)
        assert len(everything) == rows
        assert np.array_equal(everything.ids(), np.arange(rows))


def test_a_set_takes_a_bit_a_row() -> None:
    some = RowSet.where(1_000_000, lambda start, end: np.arange(start, end) % 3 == 0)
    assert some.members is not None
    assert some.members.nbytes == 125_000
    assert some._before.nbytes < 2_000
