"""Sets of rows that take a bit a row, and drawing rows by chance without a stored order.

The order that `randomness.permutation` gives sorts rows by a hash of their number. So the first `count` of that order
are the rows with the smallest hashes, and they are found by comparing each hash with a threshold: a pass over the rows
in pieces, which holds a piece and no order. What is drawn is the same to the last row as with a stored order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lehr.data.randomness import bits

PIECE = 1 << 16
"""Rows that are looked at together; a multiple of 8."""
BLOCK = 1 << 12
"""Rows between two counts of a set's members."""


@dataclass(frozen=True)
class RowSet:
    """Some of the rows 0 … of − 1, in ascending order.

    Attributes:
        of: rows that there are.
        members: uint8 [ceil(of / 8)], a bit for each row, the lowest first; None where all are members.
    """

    of: int
    members: np.ndarray | None = None

    @classmethod
    def where(cls, of: int, chosen: Callable[[int, int], np.ndarray]) -> RowSet:
        """The rows of which `chosen(start, end)`, bool [end − start], is true; asked piece by piece."""
        members = np.zeros(-(-of // 8), np.uint8)
        for start, end in pieces(of):
            members[start // 8 : -(-end // 8)] = np.packbits(chosen(start, end), bitorder="little")
        return cls(of, members)

    @classmethod
    def from_ids(cls, of: int, ids: np.ndarray) -> RowSet:
        """These rows, in whatever order they are given."""
        ids = np.sort(ids)
        return cls.where(of, lambda start, end: _marked(ids, start, end))

    def __len__(self) -> int:
        return int(self._before[-1])

    @cached_property
    def _before(self) -> np.ndarray:
        """int64 [blocks + 1]: members before each block of rows, then all of them."""
        edges = np.append(np.arange(0, self.of, BLOCK), self.of)
        if self.members is None:
            return edges
        padded = np.zeros(-(-self.of // BLOCK) * BLOCK // 8, np.uint8)
        padded[: len(self.members)] = self.members
        return np.append(0, np.cumsum(_COUNTS[padded].reshape(-1, BLOCK // 8).sum(axis=1, dtype=np.int64)))

    def before(self, rows: np.ndarray) -> np.ndarray:
        """int64: how many members are smaller than each of these numbers, 0 … of."""
        if self.members is None:
            return np.asarray(rows, np.int64)
        blocks = np.asarray(rows) // BLOCK
        found = self._before[np.minimum(blocks, len(self._before) - 1)].copy()
        for at, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            found[at] += np.count_nonzero(self._mask(int(block) * BLOCK, int(row)))
        return found

    def between(self, start: int, end: int) -> np.ndarray:
        """int64: the members from `start` up to before `end`."""
        if self.members is None:
            return np.arange(start, end)
        return np.flatnonzero(self._mask(start, end)) + start

    def at(self, positions: np.ndarray) -> np.ndarray:
        """int64: the members at these positions of the set."""
        positions = np.asarray(positions, np.int64)
        if self.members is None:
            return positions
        blocks = np.searchsorted(self._before, positions, side="right") - 1
        found = np.empty(len(positions), np.int64)
        used, of_used = np.unique(blocks, return_inverse=True)
        order = np.argsort(of_used, kind="stable")
        edges = np.searchsorted(of_used[order], np.arange(len(used) + 1))
        for number, block in enumerate(used.tolist()):
            places = order[edges[number] : edges[number + 1]]
            inside = self.between(block * BLOCK, min(self.of, (block + 1) * BLOCK))
            found[places] = inside[positions[places] - self._before[block]]
        return found

    def ids(self) -> np.ndarray:
        """int64 [members]: all of them, eight bytes each."""
        return self.between(0, self.of)

    def others(self) -> RowSet:
        """The rows that are no members."""
        return RowSet.where(self.of, lambda start, end: ~self._mask(start, end))

    def _mask(self, start: int, end: int) -> np.ndarray:
        """bool [end − start]: which rows are members."""
        if self.members is None:
            return np.ones(end - start, bool)
        first = start // 8
        found = np.unpackbits(self.members[first : -(-end // 8)], bitorder="little")
        return found[start - 8 * first : end - 8 * first].view(bool)


_COUNTS = np.array([value.bit_count() for value in range(256)], np.uint8)


def pieces(rows: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the pieces in which rows are looked at."""
    for start in range(0, rows, PIECE):
        yield start, min(rows, start + PIECE)


def _marked(ids: np.ndarray, start: int, end: int) -> np.ndarray:
    found = np.zeros(end - start, bool)
    found[ids[np.searchsorted(ids, start) : np.searchsorted(ids, end)] - start] = True
    return found


def first_of_order(
    key: int, rows: int, counts: np.ndarray, group_of: Callable[[int, int], np.ndarray] | None = None
) -> RowSet:
    """The first rows of each group in the order `randomness.permutation(key, rows)`.

    Args:
        counts: int64 [groups], how many of each; no more than it has.
        group_of: the group of each row from start to end, from 0, −1 for none; by default all are in group 0.
    """

    def groups(start: int, end: int) -> np.ndarray:
        return np.zeros(end - start, np.int64) if group_of is None else group_of(start, end)

    low, high = _thresholds(key, rows, counts, groups)

    def chosen(start: int, end: int) -> np.ndarray:
        group, hashes = groups(start, end), _hashes(key, start, end)
        below = (hashes < low[group]) | ((hashes == low[group]) & (np.arange(start, end) <= high[group]))
        return below & (group >= 0)

    return RowSet.where(rows, chosen)


def _hashes(key: int, start: int, end: int) -> np.ndarray:
    return bits(key, torch.arange(start, end)).numpy()


def _thresholds(
    key: int, rows: int, counts: np.ndarray, groups: Callable[[int, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The hash, and the number, of the last row that is taken of each group: int64 [groups + 1], twice. The last entry,
    at −1, is for rows of no group.

    Hashes are uniform, so the one sought is near its quantile: only those in a band around it are held and sorted.
    Where one lies outside, which happens about once in a billion times, the band is made wider.
    """
    sizes = np.zeros(len(counts), np.int64)
    for start, end in pieces(rows):
        group = groups(start, end)
        sizes += np.bincount(group[group >= 0], minlength=len(counts))
    share = counts / np.maximum(sizes, 1)
    width = 6.0
    while True:
        spread = (width * np.sqrt(share * (1 - share) * np.maximum(sizes, 1)) + width**2) / np.maximum(sizes, 1)
        edges = [_as_hash(np.append(each, 0.0)) for each in (share - spread, share + spread)]
        found = _thresholds_within(key, rows, counts, groups, *edges)
        if found is not None:
            return found
        width *= 8


def _as_hash(share: np.ndarray) -> np.ndarray:
    """The signed 64-bit number below which this share of all hashes lies."""
    whole = np.minimum(np.clip(share, 0, 1) * 2.0**64 - 2.0**63, 2.0**63 - 2048).astype(np.int64)
    return np.where(share >= 1, 2**63 - 1, whole)


def _thresholds_within(
    key: int,
    rows: int,
    counts: np.ndarray,
    groups: Callable[[int, int], np.ndarray],
    least: np.ndarray,
    most: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    """As `_thresholds`, sought from `least` to `most`; None where one is not among these."""
    below = np.zeros(len(counts), np.int64)
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start, end in pieces(rows):
        group, hashes = groups(start, end), _hashes(key, start, end)
        under = (group >= 0) & (hashes < least[group])
        below += np.bincount(group[under], minlength=len(counts))
        inside = np.flatnonzero((group >= 0) & ~under & (hashes <= most[group]))
        held.append((group[inside], hashes[inside], inside + start))
    group, hashes, number = (
        (np.concatenate(each) for each in zip(*held, strict=True)) if held else [np.zeros(0, int)] * 3
    )
    order = np.lexsort((number, hashes, group))
    first = np.searchsorted(group[order], np.arange(len(counts) + 1))
    last = first[:-1] + counts - below - 1
    none = counts == 0
    if bool((((last < first[:-1]) | (last >= first[1:])) & ~none).any()):
        return None
    low, high = (np.full(len(counts) + 1, -(2**63), np.int64) for _ in range(2))
    low[:-1][~none], high[:-1][~none] = hashes[order[last[~none]]], number[order[last[~none]]]
    high[:-1][none] = high[-1] = -1
    return low, high
