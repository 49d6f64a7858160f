"""The order in which an epoch of streamed rows is trained on, computed where it is needed.

The rows lie in parts, which are shuffled by (seed, epoch) into one sequence. The sequence is cut into data shards of
equal length, and each global batch takes as many rows from each shard. Within a shard, whole parts form windows, whose
rows are shuffled. So the rows of a batch are a function of (seed, epoch, number of shards). Workers only divide the
batch among themselves, by shards: neighbouring workers take neighbouring shards, and where the number of workers
divides that of the shards, a part is read by one worker, except one at the edge of a shard.

What is held is a few numbers for each part, and the order of the windows that are in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd

import numpy as np
import torch

from lehr.data.randomness import bits
from lehr.data.row_sets import RowSet

PARTS_OF_SHARD = 4
"""The fewest parts of a shard, on average: a part that lies across two shards is read for each."""


@dataclass(frozen=True)
class Slices:
    """A global batch as slices, one of each shard. The rows of the batch take turns among the shards.

    Attributes:
        shard: int64 [rows], the shard of each row of the batch.
        place: int64 [rows], its number among those of its shard.
        counts: int64 [shards], rows of each.
    """

    shard: np.ndarray
    place: np.ndarray
    counts: np.ndarray

    def worker(self, workers: int) -> np.ndarray:
        """int64 [rows]: which worker takes each row.

        With p workers for every d shards, each shard is dealt out in p equal portions, and each worker takes d
        neighbouring ones. With one shard, worker r of n takes rows r, r + n, …. Where neither number divides the other,
        workers share shards in any case, and the rows are cut so that each has as many.
        """
        divisor = gcd(workers, len(self.counts))
        portions, taken = workers // divisor, len(self.counts) // divisor
        portion = self.shard * portions + self.place % portions
        if 1 in (portions, taken):
            return portion // taken
        worker = np.empty_like(portion)
        worker[np.argsort(portion, kind="stable")] = np.arange(len(portion)) * workers // len(portion)
        return worker

    def partner(self) -> np.ndarray:
        """int64 [rows]: for mixing, the row of the batch that each is mixed with: the next of its pair of shards.

        A pair is two neighbours, so that a worker who has both needs no row of another worker. Where a pair has one row
        in the batch, it is the next of the whole batch.
        """
        pair = self.shard // 2
        if bool((np.bincount(pair) == 1).any()):
            pair = np.zeros_like(pair)
        order = np.argsort(pair, kind="stable")
        edges = np.flatnonzero(np.diff(pair[order], prepend=-1, append=-1))
        following = np.roll(order, -1)
        following[edges[1:] - 1] = order[edges[:-1]]
        partner = np.empty_like(order)
        partner[order] = following
        return partner

    def reach(self, workers: int, *, mixes: bool) -> np.ndarray:
        """bool [workers, shards]: of which shards each worker needs rows.

        Args:
            mixes: whether it needs the partners of its rows too.
        """
        found = np.zeros((workers, len(self.counts)), bool)
        found[self.worker(workers), self.shard] = True
        if mixes:
            found[self.worker(workers), self.shard[self.partner()]] = True
        return found

    def own(self, rank: int, workers: int) -> np.ndarray:
        """int64: the rows of the batch that worker `rank` takes, ascending."""
        return np.flatnonzero(self.worker(workers) == rank)


@lru_cache(maxsize=16)
def slices(rows: int, shards: int) -> Slices:
    """How a batch of so many rows is made of shards. Rows that are left over come from shards far from each other."""
    rounds, left = divmod(rows, shards)
    shard = np.concatenate([np.tile(np.arange(shards), rounds), np.arange(left) * shards // max(1, left)])
    place = np.concatenate([np.repeat(np.arange(rounds), shards), np.full(left, rounds)])
    return Slices(shard, place, np.bincount(shard, minlength=shards))


def shards_in_use(wanted: int, parts: int) -> int:
    """How many shards so many parts make: a divisor of `wanted`, fewer where there are too few parts.

    It divides, so that the workers who divide `wanted` still have whole shards, or whole numbers of workers a shard.
    """
    most = max(1, parts // PARTS_OF_SHARD)
    return max(number for number in range(1, wanted + 1) if wanted % number == 0 and number <= most)


@dataclass(frozen=True)
class Dealing:
    """How the rows of an epoch are dealt to shards and batches, whatever their order.

    Attributes:
        rows: in an epoch.
        batch_size: rows of a global batch; the last one may be smaller.
        shards: data shards.
    """

    rows: int
    batch_size: int
    shards: int

    @property
    def steps(self) -> int:
        return -(-self.rows // self.batch_size)

    def size(self, step: int) -> int:
        """Rows of the global batch at a step."""
        return min(self.batch_size, self.rows - step * self.batch_size)

    @property
    def each(self) -> np.ndarray:
        """int64 [shards]: rows of each shard in a whole batch."""
        return slices(self.batch_size, self.shards).counts

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [shards + 1]: where each shard begins in the sequence, then its end."""
        whole, last = divmod(self.rows, self.batch_size)
        return np.append(0, np.cumsum(whole * self.each + slices(last, self.shards).counts))

    def slots(self, step: int, rows: np.ndarray) -> np.ndarray:
        """int64: where these rows of the batch at a step are in the sequence, before windows are shuffled."""
        batch = slices(self.size(step), self.shards)
        shard = batch.shard[rows]
        return self.starts[shard] + step * self.each[shard] + batch.place[rows]

    def step(self, slots: np.ndarray) -> np.ndarray:
        """int64: the step whose batch takes the row at each of these places."""
        shard = np.searchsorted(self.starts[1:], slots, side="right").clip(max=self.shards - 1)
        each = self.each[shard]
        return np.where(
            each, np.minimum((slots - self.starts[shard]) // np.maximum(each, 1), self.steps - 1), self.steps - 1
        )


@dataclass(frozen=True)
class Spread:
    """How far a row can move. Its part may come anywhere in the epoch; the rows of a part stay near each other.

    Attributes:
        parts: that there are.
        apart: two rows of a part are fewer rows than this apart in the epoch, but for a part at the edge of a shard.
        at_once: of how many parts a batch has rows, about, if it is large.
    """

    parts: int
    apart: int
    at_once: int

    def sentence(self, shards: int) -> str:
        where = f"{shards} data shard{'s' if shards > 1 else ''}"
        return (
            f"streamed in {where}: rows of about {self.at_once:,} of {self.parts:,} parts are mixed at a time, "
            f"and those of one part are less than {self.apart:,} rows apart"
        )


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch.

    Attributes:
        dealing: to shards and batches.
        parts: int64 [parts], the parts that have rows, shuffled.
        ends: int64 [parts], where each ends in the sequence.
        firsts: int64 [parts], the position of its first row among all rows.
        cuts: int64 [windows + 1], where each window begins in the sequence, then the end.
        members: which rows of the source they are.
        key: of the order of the rows in the windows; None leaves them as they are.
    """

    dealing: Dealing
    parts: np.ndarray
    ends: np.ndarray
    firsts: np.ndarray
    cuts: np.ndarray
    members: RowSet
    key: int | None

    @classmethod
    def shuffled(cls, members: RowSet, counts: np.ndarray, dealing: Dealing, window_rows: int, key: int) -> EpochOrder:
        """
        Args:
            members: the rows. counts: int64 [parts], how many of them each part has.
            window_rows: rows in a window, about: it is made of whole parts.
            key: of the epoch.
        """
        used = np.flatnonzero(counts)
        parts = used[np.argsort(bits(key, torch.from_numpy(used), draw=1).numpy(), kind="stable")]
        ends = np.cumsum(counts[parts])
        cuts = _cuts(ends, dealing.starts, window_rows)
        return cls(dealing, parts, ends, (np.cumsum(counts) - counts)[parts], cuts, members, key)

    @classmethod
    def as_it_is(cls, members: RowSet, counts: np.ndarray, batch_size: int) -> EpochOrder:
        """All rows in their order, in batches; each part is a window."""
        parts = np.flatnonzero(counts)
        ends = np.cumsum(counts[parts])
        rows = int(ends[-1]) if len(ends) else 0
        return cls(Dealing(rows, batch_size, 1), parts, ends, ends - counts[parts], np.append(0, ends), members, None)

    @property
    def spread(self) -> Spread:
        """How well the order mixes."""
        rows, shards = np.diff(self.cuts), self.dealing.shards
        most = int(rows.max(initial=0))
        counts = np.diff(self.ends, prepend=0)
        # Two rows of a part are in one window, whose rows come one in each turn of the shards.
        return Spread(len(self.parts), most * shards, round(shards * rows.mean() / max(1.0, counts.mean())))

    def window(self, slots: np.ndarray) -> np.ndarray:
        """int64: the window of each place in the sequence."""
        return np.searchsorted(self.cuts, slots, side="right") - 1

    def ids(self, number: int) -> list[np.ndarray]:
        """The rows of each piece of a window: int64, by their number in the source."""
        return [self.members.at(np.arange(first, first + rows)) for _, first, rows in self.pieces(number)]

    def within(self, ids: np.ndarray) -> np.ndarray:
        """int64: for each place in a window of these rows, which of them is trained on there."""
        if self.key is None:
            return np.arange(len(ids))
        return np.argsort(bits(self.key, torch.from_numpy(ids)).numpy(), kind="stable")

    def pieces(self, number: int) -> list[tuple[int, int, int]]:
        """What a window is made of: (part, position of its first row among all rows, rows), in order."""
        start, end = int(self.cuts[number]), int(self.cuts[number + 1])
        found = []
        for at in range(int(np.searchsorted(self.ends, start, side="right")), len(self.parts)):
            begins = int(self.ends[at - 1]) if at else 0
            if begins >= end:
                break
            first, last = max(start, begins), min(end, int(self.ends[at]))
            found.append((int(self.parts[at]), int(self.firsts[at]) + first - begins, last - first))
        return found

    def positions(self, slots: np.ndarray) -> np.ndarray:
        """int64: the positions, among all rows, of those that are trained on at these places in the sequence."""
        found, window = np.empty(len(slots), np.int64), self.window(slots)
        for number in np.unique(window).tolist():
            inside = window == number
            at = self.cuts[number] + self.within(np.concatenate(self.ids(number)))[slots[inside] - self.cuts[number]]
            part = np.searchsorted(self.ends, at, side="right")
            begins = np.where(part > 0, self.ends[part - 1], 0)
            found[inside] = self.firsts[part] + at - begins
        return found

    def whole(self) -> torch.Tensor:
        """int64 [rows]: the positions of all rows in the order of the epoch."""
        slots = [self.dealing.slots(step, np.arange(self.dealing.size(step))) for step in range(self.dealing.steps)]
        return torch.from_numpy(self.positions(np.concatenate(slots)) if slots else np.zeros(0, np.int64))


def _cuts(ends: np.ndarray, starts: np.ndarray, window_rows: int) -> np.ndarray:
    """Where windows begin: at parts and shards only.

    The first window of a shard is shorter in each shard than in the one before: they do not all end together.
    """
    total = int(starts[-1])
    edges = np.unique(np.concatenate([starts, ends, [0, total]]))
    begins = edges[:-1]
    shard = np.searchsorted(starts[1:], begins, side="right").clip(max=len(starts) - 2)
    phase = shard * window_rows // (len(starts) - 1)
    window = (begins - starts[shard] + phase) // window_rows
    fresh = np.ones(len(begins), bool)
    fresh[1:] = (np.diff(shard) != 0) | (np.diff(window) != 0)
    return np.append(begins[fresh], total)
