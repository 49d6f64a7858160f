"""Which rows are held out: the same share of each class in every part, whole groups, and folds.

Pure functions of (seed, labels, groups): no row's part depends on who asks, or on how many workers there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lehr.data.labels import Labels, is_masks, one_class_each
from lehr.data.randomness import key, permutation, uniform

MOST_BINS = 10  # of numbers, from the smallest to the largest
ROWS_OF_BIN = 2  # in each part, at least
ORDERS, FEW_GROUPS = 8, 200  # few groups are dealt in so many orders, and the best counts: large ones fit badly
MOST_EXCHANGED = 1000  # groups up to which pairs of them are exchanged, which takes the square of their number

Strata = np.ndarray
"""What the parts are to have alike: int64 [rows], the stratum of each row; or bool [rows, strata], of which a row may
have several."""


def strata_of(labels: Labels, parts: int) -> Strata | None:
    """What parts can have alike of these labels; None where nothing can be said: of boxes, words.

    A class; several classes; of numbers the tenth that each is in, from the smallest, or fewer where rows are few.
    """
    if not isinstance(labels, np.ndarray) or is_masks(labels):
        return None
    if one_class_each(labels):
        return np.asarray(labels, np.int64)
    if labels.dtype.kind != "f":
        return np.asarray(labels) > 0
    rows = len(labels)
    count = max(1, min(MOST_BINS, rows // (ROWS_OF_BIN * parts)))
    ranks = np.argsort(np.argsort(labels.reshape(rows, -1), axis=0, kind="stable"), axis=0, kind="stable")
    bins = ranks * count // max(1, rows)
    return bins[:, 0] if bins.shape[1] == 1 else (bins[:, :, None] == np.arange(count)).reshape(rows, -1)


def deal_rows(strata: Strata | None, rows: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part of each row, int64 [rows]: in each part the share of each stratum is as near to `shares` as can be.

    Args:
        strata: None where rows are only counted.
        shares: of all rows, for each part; equal ones unless a row has several strata.
    """
    if strata is not None and strata.ndim > 1:
        return _iteratively(strata, np.asarray(shares), seed)
    order = permutation(key(seed, "split"), rows).numpy()
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    part = np.empty(rows, np.int64)
    part[order] = np.arange(rows) % len(shares)
    return part


def _iteratively(has: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", 2011.

    The class with the fewest rows left is dealt first, each of its rows to the part that lacks most of that class, of
    several such parts to the one that lacks most rows.
    """
    rows, part = len(has), np.full(len(has), -1, np.int64)
    order = permutation(key(seed, "split"), rows).numpy()
    by_chance = uniform(key(seed, "split ties"), torch.arange(rows)).numpy()
    lacks_class, lacks = np.outer(shares, has.sum(axis=0)), shares * rows
    left = has.sum(axis=0)

    def deal(row: int, wanted: np.ndarray) -> None:
        best = np.flatnonzero(wanted > wanted.max() - 1e-9)
        best = best[lacks[best] > lacks[best].max() - 1e-9]
        chosen = best[int(by_chance[row] * len(best))]
        part[row], left[has[row]] = chosen, left[has[row]] - 1
        lacks_class[chosen] -= has[row]
        lacks[chosen] -= 1

    while (left > 0).any():
        rarest = int(np.argmin(np.where(left > 0, left, rows + 1)))
        for row in order[has[order, rarest] & (part[order] < 0)]:
            deal(row, lacks_class[:, rarest])
    for row in order[part[order] < 0]:
        deal(row, lacks)
    return part


def deal_groups(groups: np.ndarray, strata: Strata | None, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part of each row, int64 [rows], so that no group is in two parts.

    In an order that the seed draws, each group goes where it brings sizes and strata nearest to `shares`; then groups
    are moved and exchanged while that brings them nearer; of few groups the best of several orders counts. Sizes count
    as much as all strata together.

    Args:
        groups: int64 [rows], the group of each; a group's place in the order depends on this number and the seed alone.

    Raises:
        ValueError: there are fewer groups than parts.
    """
    names, of_row = np.unique(groups, return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} groups cannot be dealt into {len(shares)} parts")
    counts = _counts(of_row, len(names), strata)
    tried = []
    for number in range(ORDERS if len(names) <= FEW_GROUPS else 1):
        dealt, drawn = _Dealt(counts, np.asarray(shares)), uniform(key(seed, "split"), torch.from_numpy(names), number)
        dealt.deal(np.argsort(drawn.numpy(), kind="stable"))
        tried.append(dealt)
    return min(tried, key=lambda dealt: round(dealt.cost, 9)).part[of_row]


def _counts(of_row: np.ndarray, groups: int, strata: Strata | None) -> np.ndarray:
    """float64 [groups, 1 + strata]: the rows of each group, and how many of them are of each stratum."""
    columns = [np.bincount(of_row, minlength=groups)]
    if strata is not None and strata.ndim == 1:
        used, column = np.unique(strata, return_inverse=True)
        both = np.bincount(of_row * len(used) + column, minlength=groups * len(used))
        return np.concatenate([columns[0][:, None], both.reshape(groups, len(used))], axis=1).astype(np.float64)
    for each in () if strata is None else strata.T:
        columns.append(np.bincount(of_row[each], minlength=groups))
    return np.stack(columns, axis=1).astype(np.float64)


class _Dealt:
    """Groups that are dealt into parts.

    The cost of a part is the sum over columns of (has − wanted)² / wanted, those of the strata divided by their number.
    """

    def __init__(self, counts: np.ndarray, shares: np.ndarray) -> None:
        self.counts = counts
        total = counts.sum(axis=0)
        self.wanted = np.outer(shares, total)
        weight = np.full(counts.shape[1], 1 / max(1, counts.shape[1] - 1))
        weight[0] = 1.0
        self.scale = weight / np.maximum(self.wanted, 1e-12) * (total > 0)
        self.has = np.zeros_like(self.wanted)
        self.part = np.full(len(counts), -1, np.int64)
        self.groups = np.zeros(len(shares), np.int64)  # in each part

    @property
    def cost(self) -> float:
        """Of all parts together."""
        return float(self._cost(self.has).sum())

    def deal(self, order: np.ndarray) -> None:
        """Puts each group into a part, int64 [groups]."""
        for number, group in enumerate(order):
            added = self._cost(self.has + self.counts[group]) - self._cost(self.has)
            if len(order) - number <= (self.groups == 0).sum():  # the last ones: every part has a group
                added[self.groups > 0] = np.inf
            self._put(group, int(np.argmin(added)))
        while sum(self._moved(group) or self._exchanged(group) for group in order):
            pass  # another round over all groups

    def _cost(self, has: np.ndarray) -> np.ndarray:
        """float64 [..., parts] of what parts have, [..., parts, columns]."""
        cost: np.ndarray = ((has - self.wanted) ** 2 * self.scale).sum(axis=-1)
        return cost

    def _put(self, group: int, part: int) -> None:
        if self.part[group] >= 0:
            self.has[self.part[group]] -= self.counts[group]
            self.groups[self.part[group]] -= 1
        self.has[part] += self.counts[group]
        self.groups[part] += 1
        self.part[group] = part

    def _moved(self, group: int) -> bool:
        """Whether another part is better for a group, which is moved then."""
        at = self.part[group]
        if self.groups[at] == 1:
            return False
        now = self._cost(self.has)
        change = self._cost(self.has + self.counts[group]) - now
        change += (self._cost(self.has - self.counts[group]) - now)[at]
        change[at] = 0.0
        best = int(np.argmin(change))
        if change[best] < -1e-9:
            self._put(group, best)
            return True
        return False

    def _exchanged(self, group: int) -> bool:
        """Whether a group of another part is better in its place, with which it changes places then."""
        if len(self.part) > MOST_EXCHANGED:
            return False
        at = self.part[group]
        others = np.flatnonzero(self.part != at)
        theirs, difference = self.part[others], self.counts[others] - self.counts[group]
        now = self._cost(self.has)

        def cost(parts: np.ndarray | int, has: np.ndarray) -> np.ndarray:
            found: np.ndarray = ((has - self.wanted[parts]) ** 2 * self.scale[parts]).sum(axis=-1)
            return found

        change = cost(at, self.has[at] + difference) - now[at]
        change += cost(theirs, self.has[theirs] - difference) - now[theirs]
        best = int(np.argmin(change))
        if change[best] >= -1e-9:
            return False
        other, there = int(others[best]), int(theirs[best])
        self._put(group, there)
        self._put(other, int(at))
        return True
