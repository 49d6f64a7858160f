"""Rows are dealt into parts alike: whole groups, the same share of each class, and the same for whoever asks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehr.data.dealing import deal_groups, deal_rows, strata_of


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=5, max_size=40),
    parts=st.integers(2, 5),
    classes=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_no_group_is_in_two_parts_and_no_part_is_empty(sizes: list[int], parts: int, classes: int, seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)) * 7919 - 5, sizes)
    strata = np.random.default_rng(seed).integers(0, classes, len(groups))
    part = deal_groups(groups, strata, [1 / parts] * parts, seed)
    assert all(len(set(part[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert set(part.tolist()) == set(range(parts))
    shuffled = np.random.default_rng(0).permutation(len(groups))
    assert (deal_groups(groups[shuffled], strata[shuffled], [1 / parts] * parts, seed) == part[shuffled]).all()


def test_sizes_are_as_near_to_what_was_asked_as_whole_groups_allow() -> None:
    draw, off = np.random.default_rng(1), []
    for seed in range(60):
        sizes = draw.integers(1, 30, 10)
        groups = np.repeat(np.arange(10), sizes)
        held_out = int((deal_groups(groups, None, [0.8, 0.2], seed) == 1).sum())
        sums = {sum(some) for count in range(1, 10) for some in itertools.combinations(sizes.tolist(), count)}
        nearest = min(abs(each - 0.2 * sizes.sum()) for each in sums)
        off.append(abs(held_out - 0.2 * sizes.sum()) - nearest)
    assert np.mean(np.array(off) < 1e-9) >= 0.9
    assert max(off) <= 2  # rows, where groups have up to 29


def test_folds_of_groups_have_equal_sizes_and_the_classes_in_the_same_proportion() -> None:
    draw = np.random.default_rng(2)
    groups = np.repeat(np.arange(120), draw.integers(1, 20, 120))
    strata = (draw.random(len(groups)) < np.array([0.1, 0.5])[groups % 2]).astype(np.int64)
    part = deal_groups(groups, strata, [0.2] * 5, 0)
    rows = np.bincount(part)
    assert rows.max() - rows.min() <= 2
    shares = [strata[part == each].mean() for each in range(5)]
    assert max(shares) - min(shares) < 0.01


def test_groups_follow_the_seed_and_their_name_alone() -> None:
    groups = np.repeat(np.arange(30), 4)
    first, again, other = (deal_groups(groups, None, [0.8, 0.2], seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).all()
    assert set(np.unique(groups[first == 1])) != set(range(6))


@pytest.mark.parametrize("parts", [2, 5, 7])
def test_each_class_is_dealt_evenly_and_so_are_all_rows(parts: int) -> None:
    strata = np.repeat([0, 1, 2, 3], [1, 8, 33, 200])
    part = deal_rows(strata, len(strata), [1 / parts] * parts, 3)
    for rows in (part, *(part[strata == each] for each in range(4))):
        counts = np.bincount(rows, minlength=parts)
        assert counts.max() - counts.min() <= 1


def test_rare_classes_among_several_are_dealt_first() -> None:
    draw = np.random.default_rng(0)
    has = draw.random((500, 6)) < np.array([0.5, 0.3, 0.1, 0.05, 0.02, 0.01])
    part = deal_rows(has, len(has), [0.2] * 5, 0)
    by_chance = np.random.default_rng(1).permutation(500) % 5

    def uneven(parts: np.ndarray) -> np.ndarray:
        counts = np.stack([has[parts == each].sum(axis=0) for each in range(5)])
        return counts.max(axis=0) - counts.min(axis=0)

    assert np.bincount(part).tolist() == [100] * 5
    assert (uneven(part)[2:] <= 2).all()
    assert uneven(part).sum() < uneven(by_chance).sum() / 2
    held_out = deal_rows(has, len(has), [0.8, 0.2], 0)
    assert np.abs(has[held_out == 1].sum(axis=0) - 0.2 * has.sum(axis=0)).max() <= 1.5


def test_numbers_are_dealt_from_the_smallest_to_the_largest() -> None:
    values = np.random.default_rng(0).lognormal(0, 2, (200, 1))
    part = deal_rows(strata_of(values, 5), 200, [0.2] * 5, 0)
    ranks = np.argsort(np.argsort(values[:, 0]))
    assert np.ptp([ranks[part == each].mean() for each in range(5)]) < 8  # of 199; by chance about 35
    both = strata_of(np.random.default_rng(0).normal(size=(200, 2)), 5)
    assert both is not None
    assert both.shape == (200, 20)


def test_fewer_groups_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups cannot be dealt into 3 parts"):
        deal_groups(np.array([1, 1, 2]), None, [1 / 3] * 3, 0)


def test_many_groups_are_dealt_in_seconds() -> None:
    groups = np.arange(20_000) // 2
    part = deal_groups(groups, groups % 3, [0.2] * 5, 0)
    assert np.ptp(np.bincount(part)) <= 2


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_as_many_groups_as_parts_are_one_for_each(parts: int) -> None:
    draw = np.random.default_rng(parts)
    for seed in range(20):
        groups = np.repeat(np.arange(parts), draw.integers(1, 9, parts))
        part = deal_groups(groups, draw.integers(0, 3, len(groups)), [1 / parts] * parts, seed)
        assert sorted({part[groups == group][0] for group in range(parts)}) == list(range(parts))


def test_where_parts_can_be_alike_they_are() -> None:
    """Six groups, four with six of ten rows of a class and two with four: one of each pair in each half."""
    groups = np.repeat(np.arange(6), 10)
    strata = np.concatenate([[1] * ones + [0] * (10 - ones) for ones in (6, 6, 6, 6, 4, 4)])
    for seed in range(20):
        part = deal_groups(groups, strata, [0.5, 0.5], seed)
        assert [strata[part == half].sum() for half in (0, 1)] == [16, 16]
        assert np.bincount(part).tolist() == [30, 30]


def test_few_groups_of_three_classes_leave_each_class_in_both_halves() -> None:
    strata, groups = np.array([1, 1, 0, 0, 2, 2]), np.array([0, 1, 1, 2, 2, 3])
    for seed in range(20):
        part = deal_groups(groups, strata, [0.5, 0.5], seed)
        assert [sorted(strata[part == half].tolist()) for half in (0, 1)] == [[0, 1, 2], [0, 1, 2]]


def test_a_share_is_one_of_rows_and_not_of_groups() -> None:
    groups = np.array([0] * 5 + [1] * 3 + [2, 4])
    for seed in range(20):
        assert (deal_groups(groups, None, [0.8, 0.2], seed) == 1).sum() == 2


def test_a_share_of_rows_with_several_classes_is_that_share() -> None:
    has = np.array([[0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [1, 1], [1, 0], [1, 0]], bool)
    for seed in range(10):
        held_out = deal_rows(has, 8, [0.75, 0.25], seed) == 1
        assert held_out.sum() == 2
        assert has[held_out].sum(axis=0).tolist() == [1, 1]
