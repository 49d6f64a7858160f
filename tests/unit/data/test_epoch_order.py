"""The order of a streamed epoch: each row once, batches made of as many rows of each shard, workers who share them."""

from __future__ import annotations

import numpy as np
import pytest

from lehr.data.epoch_order import Dealing, EpochOrder, shards_in_use, slices
from lehr.data.row_sets import RowSet

CASES = [(97, 16, 4, 10), (1000, 64, 16, 80), (1003, 100, 16, 80), (50, 7, 16, 50), (5, 64, 16, 5), (99, 98, 16, 70)]
"""Rows, rows of a batch, shards, parts: batches that shards do not divide, smaller than the shards, larger than all."""


def order_of(rows: int, batch: int, shards: int, parts: int, key: int = 5) -> EpochOrder:
    counts = np.bincount(np.random.default_rng(rows).integers(0, parts, rows), minlength=parts)
    dealing = Dealing(rows, batch, shards)
    return EpochOrder.shuffled(RowSet(rows), counts, dealing, max(1, rows // 8 // shards), key)


@pytest.mark.parametrize(("rows", "batch", "shards", "parts"), [*CASES, (640, 64, 1, 9)])
def test_an_epoch_has_every_row_once_and_every_batch_its_slices(rows: int, batch: int, shards: int, parts: int) -> None:
    order = order_of(rows, batch, shards, parts)
    dealing = order.dealing
    assert sorted(order.whole().tolist()) == list(range(rows))
    assert dealing.starts[-1] == rows
    for step in range(dealing.steps):
        slots = dealing.slots(step, np.arange(dealing.size(step)))
        assert (dealing.step(slots) == step).all()
        shard = np.searchsorted(dealing.starts[1:], slots, side="right")
        assert np.array_equal(shard, slices(dealing.size(step), shards).shard)
        assert np.ptp(np.bincount(shard, minlength=shards)) <= 1
    assert not np.array_equal(order.whole(), order_of(rows, batch, shards, parts, key=6).whole()) or rows < 6


@pytest.mark.parametrize("shards", [1, 2, 3, 16])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 8, 16, 24, 32])
@pytest.mark.parametrize("rows", [1, 7, 64, 96, 100])
def test_workers_take_each_row_of_a_batch_once_in_even_shares(rows: int, workers: int, shards: int) -> None:
    batch = slices(rows, shards)
    assert sorted(np.concatenate([batch.own(rank, workers) for rank in range(workers)]).tolist()) == list(range(rows))
    counts = np.bincount(batch.worker(workers), minlength=workers)
    if rows >= shards and (workers % shards == 0 or shards % workers):
        assert np.ptp(counts) <= 2
    if shards == 1:  # as cached rows are dealt, and streamed ones were
        assert np.array_equal(batch.worker(workers), np.arange(rows) % workers)


def test_workers_who_divide_the_shards_share_none_and_others_few() -> None:
    reach = {workers: slices(256, 16).reach(workers, mixes=False).sum() for workers in (1, 2, 3, 4, 6, 8, 16, 32, 64)}
    assert reach == {1: 16, 2: 16, 3: 18, 4: 16, 6: 20, 8: 16, 16: 16, 32: 32, 64: 64}
    mixing = {workers: slices(256, 16).reach(workers, mixes=True).sum() for workers in (1, 2, 4, 8, 16)}
    assert mixing == {1: 16, 2: 16, 4: 16, 8: 16, 16: 32}
    nodes = slices(256, 16).reach(64, mixes=False).reshape(8, 8, 16).any(axis=1)  # eight nodes of eight workers
    assert nodes.sum() == 16


@pytest.mark.parametrize("shards", [1, 2, 3, 16])
@pytest.mark.parametrize("rows", [1, 2, 9, 17, 64, 100])
def test_for_mixing_each_row_is_the_partner_of_one_other(rows: int, shards: int) -> None:
    partner = slices(rows, shards).partner()
    assert sorted(partner.tolist()) == list(range(rows))
    assert rows == 1 or (partner != np.arange(rows)).all()
    if shards == 1:
        assert np.array_equal(partner, (np.arange(rows) + 1) % rows)


def test_few_parts_make_few_shards_which_divide_those_that_were_asked_for() -> None:
    assert [shards_in_use(16, parts) for parts in (1, 7, 8, 31, 32, 63, 64, 10**6)] == [1, 1, 2, 4, 8, 8, 16, 16]
    assert [shards_in_use(12, parts) for parts in (20, 24, 100)] == [4, 6, 12]


def test_the_windows_of_different_shards_do_not_begin_together() -> None:
    order = order_of(100_000, 64, 16, 5000)
    begins = order.dealing.step(order.cuts[:-1])
    assert np.unique(begins, return_counts=True)[1][1:].max() <= 3


def sorted_by_class(shards: int, parts: int = 200, rows: int = 50, classes: int = 10) -> tuple[EpochOrder, np.ndarray]:
    """An order of parts that each hold one class, and the class of each row."""
    counts = np.full(parts, rows)
    dealing = Dealing(parts * rows, 64, shards)
    order = EpochOrder.shuffled(RowSet(parts * rows), counts, dealing, parts * rows // 8 // shards, 3)
    return order, np.arange(parts * rows) * classes // (parts * rows)


def test_a_part_may_come_anywhere_and_its_rows_stay_as_near_as_is_said() -> None:
    order, _ = sorted_by_class(16)
    place = np.empty(len(order.whole()), np.int64)
    place[order.whole().numpy()] = np.arange(len(place))
    of_part = place.reshape(200, 50)
    within = np.ptp(of_part, axis=1) < order.spread.apart
    assert within.sum() >= 200 - 15  # but for those at the edge of a shard
    moved = np.abs(place - np.arange(len(place))) / len(place)
    assert abs(moved.mean() - 1 / 3) < 0.05  # as where any place is as likely
    assert order.spread.at_once == 200 // 8 or abs(order.spread.at_once - 25) < 8


def test_rows_sorted_by_class_come_mixed() -> None:
    """The share of pairs, in a batch and in two that follow each other, that are of one class: a tenth if all were
    mixed, all of them if nothing were."""
    shares = {}
    for shards in (1, 4, 16):
        order, classes = sorted_by_class(shards)
        batches = classes[order.whole().numpy()][: 64 * 156].reshape(156, 64)
        counts = np.stack([(batches == label).sum(axis=1) for label in range(10)], axis=1)
        inside = float((counts * (counts - 1)).sum() / (64 * 63 * 156))
        following = float((counts[1:] * counts[:-1]).sum() / (64 * 64 * 155))
        shares[shards] = inside, following
    assert all(0.095 < share < 0.16 for each in shares.values() for share in each), shares
