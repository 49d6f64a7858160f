"""Rows that are decoded on demand, for data sets that do not fit into memory.

The order of an epoch is fixed by (seed, epoch, data shards), see `epoch_order.py`. A worker decodes the parts of its
own shards, each once, in windows that are ahead of training (`windows.py`). So rows, batches and steps do not depend on
the number of workers, each row occurs once per epoch, and a run can resume at any step (STREAMING.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lehr.data.dataset import Batch, BatchSampler, DataSubset
from lehr.data.decode import Decoded, decode
from lehr.data.epoch_order import PARTS_OF_SHARD, Dealing, EpochOrder, shards_in_use
from lehr.data.labels import Labels, Unread, concatenate, mark_unreadable, one_class_each
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import permutation
from lehr.data.reading import check_unreadable
from lehr.data.row_sets import RowSet, pieces
from lehr.data.sources.base import Part, Source
from lehr.data.targets import as_targets
from lehr.data.windows import Ahead, Pending, Wanted, Window

WINDOW_BYTES = 256 << 20  # of decoded pixels in the shuffle windows of all shards together
WINDOWS = 8  # the least number of windows per epoch and shard, roughly, so that decoding and training overlap

T = TypeVar("T")


class Decoder(Protocol):
    """Decodes rows of parts: in threads of this process, or on Ray."""

    at_once: int
    """How many parts are decoded at the same time."""

    def submit(self, part: Part, rows: Sequence[int], wanted: PixelFormat, number: int = 0, takers: int = 1) -> Pending:
        """Decodes these rows of part `number`, in the order given; `takers` is how many workers ask for just them."""
        ...


class ThreadDecoder:
    """Decodes in threads of this process."""

    def __init__(self, threads: int) -> None:
        self.at_once = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, part: Part, rows: Sequence[int], wanted: PixelFormat, number: int = 0, takers: int = 1) -> Pending:
        return self._pool.submit(decode_rows, part, rows, wanted)


def decode_rows(part: Part, rows: Sequence[int], wanted: PixelFormat) -> Decoded:
    """Decodes some rows of a part, in the order given."""
    return decode(part.read(rows), wanted)


@dataclass(frozen=True)
class Stream:
    """A source whose rows are decoded on demand; the counterpart of `Images`.

    Attributes:
        labels: int64 [rows], or of another form, see `lehr.data.labels`.
        wanted: what every image is decoded to; it has a size and channels.
        skip: the share of images that may be unreadable, 0 to 1.
        unreadable: row id -> reason, as far as this process knows.
        reported: those of them that are already among the events of the run.
    """

    source: Source
    labels: Labels
    wanted: PixelFormat
    decoder: Decoder
    skip: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def groups(self) -> np.ndarray | None:
        """int64 [rows], equal for rows that must be in one split; None without groups."""
        return self.source.groups

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        size, channels = self.wanted.size, self.wanted.channels
        assert size is not None, "a stream knows the size of its images"
        assert channels is not None, "a stream knows the channels of its images"
        return *size, channels

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [parts + 1]: the id of each part's first row, then the number of rows."""
        return self.source.starts

    def rows(self, ids: Tensor | RowSet) -> StreamedSubset:
        return StreamedSubset(self, ids)

    def note_unreadable(self, row: int, why: str) -> None:
        """Raises LehrError where that is one more than may be skipped."""
        self.unreadable[row] = why
        check_unreadable(self.unreadable, self.source, self.skip)


class StreamedSubset(DataSubset):
    """Some rows of a `Stream`; the interface is that of rows in memory.

    Attributes:
        some: the rows as a set, where they are in ascending order; else None, and each has its number.
    """

    decodes_lazily = True

    def __init__(self, stream: Stream, ids: Tensor | RowSet) -> None:
        self.classes, self.stream = stream.classes, stream
        if not isinstance(ids, RowSet) and bool((ids[1:] > ids[:-1]).all()):
            ids = RowSet.from_ids(len(stream), ids.numpy())
        self.some = ids if isinstance(ids, RowSet) else None
        self._listed = torch.empty(0, dtype=torch.int64) if isinstance(ids, RowSet) else ids

    def __len__(self) -> int:
        return len(self._listed if self.some is None else self.some)

    @property
    def ids(self) -> Tensor:  # type: ignore[override]
        """int64 [rows]: the row numbers in the source."""
        return torch.from_numpy(self.some.ids()) if self.some is not None else self._listed

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.stream.shape
        return channels, height, width

    @property
    def labels(self) -> Any:
        return as_targets(self._labels_of(self.ids.numpy()))

    def labels_at(self, positions: Tensor) -> Any:
        return as_targets(self._labels_of(self._ids(positions.numpy())))

    def class_counts(self) -> Tensor:
        counts = np.zeros(len(self.classes), np.int64)
        for start, end in pieces(len(self)):
            known = self._labels_of(self._ids(np.arange(start, end)))
            counts += np.bincount(known[known >= 0], minlength=len(counts))
        return torch.from_numpy(counts)

    def gather(self, positions: Tensor) -> Batch:
        return next(self.batches([positions]))

    def subset(self, positions: Tensor) -> StreamedSubset:
        return StreamedSubset(self.stream, torch.from_numpy(self._ids(positions.numpy())))

    def unreadable(self) -> dict[int, str]:
        return dict(self.stream.unreadable)

    def add_unreadable(self, found: Mapping[int, str]) -> list[str]:
        stream = self.stream
        stream.unreadable.update(found)
        check_unreadable(stream.unreadable, stream.source, stream.skip)
        new = sorted(found.keys() - stream.reported)
        stream.reported.update(new)
        return [f"{stream.source.name_of(row)} ({found[row]})" for row in new]

    def _ids(self, positions: np.ndarray) -> np.ndarray:
        return self.some.at(positions) if self.some is not None else self._listed.numpy()[positions]

    def _labels_of(self, ids: np.ndarray) -> Labels:
        """The labels of these rows as a batch has them, as a copy."""
        found = self.stream.labels[ids]
        return found.astype(np.int64) if one_class_each(found) else found

    # ── an epoch in shards ──────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _of_parts(self) -> np.ndarray:
        """int64 [parts]: how many of the rows each part has."""
        assert self.some is not None, "rows in the order of their parts"
        return np.diff(self.some.before(self.stream.starts))

    def shards(self, wanted: int) -> int:
        """How many data shards the rows make; see `shards_in_use`."""
        return shards_in_use(wanted, int(np.count_nonzero(self._of_parts))) if self.some is not None else 1

    def sampler(self, batch_size: int, seed: int, shards: int) -> BatchSampler:
        """The batches of every epoch; `shards` is what the job asks for."""
        if self.some is None:
            return BatchSampler(len(self), batch_size, seed, self.order)
        return self.sampler_of(batch_size, seed, self.shards(shards))

    def sampler_of(self, batch_size: int, seed: int, used: int) -> BatchSampler:
        """The same for the number of shards that are in use."""
        dealt = partial(self.dealt, batch_size=batch_size, shards=used)
        return BatchSampler(len(self), batch_size, seed, self.order, used, dealt)

    def dealt(self, key: int, batch_size: int, shards: int) -> EpochOrder:
        """The order of an epoch; see `EpochOrder`."""
        assert self.some is not None, "rows in the order of their parts"
        dealing = Dealing(len(self), batch_size, shards)
        return EpochOrder.shuffled(self.some, self._of_parts, dealing, max(1, self.window_rows(shards)), key)

    def order_told(self, batch_size: int, shards: int) -> str:
        """How well an epoch in so many shards, as the job asks for, is shuffled, as a sentence."""
        if self.some is None:
            return ""
        used = self.shards(shards)
        fewer = (
            f"; data.shards asks for {shards}, which takes {PARTS_OF_SHARD * shards:,} parts" if used < shards else ""
        )
        return self.dealt(0, batch_size, used).spread.sentence(used) + fewer

    def window_rows(self, shards: int) -> int:
        """Rows of a window, about: as many as `WINDOW_BYTES` hold for all shards, and an eighth of a shard."""
        by_size = WINDOW_BYTES // max(1, int(np.prod(self.stream.shape)))
        return max(1, min(by_size, len(self) // WINDOWS) // shards)

    def epoch(self, order: EpochOrder, steps: Iterable[tuple[int, np.ndarray]], reach: np.ndarray) -> Iterator[Batch]:
        """A batch for each step.

        Args:
            steps: ascending numbers, each with the rows of the global batch that are wanted: int64.
            reach: int64 [shards], how many workers need rows of each shard; 0 where this one does not.
        """
        steps = iter(steps)
        if (begin := next(steps, None)) is None:
            return
        shard = np.searchsorted(order.dealing.starts[1:], order.cuts[:-1], side="right")
        last = order.dealing.step(order.cuts[1:] - 1)
        used = np.flatnonzero((reach[shard] > 0) & (last >= begin[0]))
        first = order.dealing.step(order.cuts[used])
        rows = int(self.window_rows(len(reach)) * np.count_nonzero(reach))
        slots = ((step, order.dealing.slots(step, wanted)) for step, wanted in chain([begin], steps))
        yield from self._read(order, slots, _wanted(order, used, first, last[used]), reach[shard], rows)

    def in_order(self, rank: int, workers: int, batch_size: int) -> Iterator[Batch]:
        if self.some is None:
            yield from super().in_order(rank, workers, batch_size)
            return
        order = EpochOrder.as_it_is(self.some, self._of_parts, batch_size)
        mine = self.share(rank, workers)
        begin, end = int(mine.start), int(mine.stop)
        used = np.flatnonzero((order.cuts[:-1] < end) & (order.cuts[1:] > begin))
        first = np.maximum(order.cuts[used] - begin, 0) // batch_size
        last = (np.minimum(order.cuts[used + 1], end) - 1 - begin) // batch_size
        chunks = (np.arange(at, min(end, at + batch_size)) for at in range(begin, max(end, begin + 1), batch_size))
        rows, alone = self.window_rows(1) // workers, np.ones(len(order.cuts), np.int64)
        yield from self._read(order, enumerate(chunks), _wanted(order, used, first, last), alone, rows)

    def share_of(self, asked: int, rank: int, workers: int) -> range:
        return range(asked * rank // workers, asked * (rank + 1) // workers)  # neighbours: they are in the same parts

    def _read(
        self,
        order: EpochOrder,
        slots: Iterable[tuple[int, np.ndarray]],
        wanted: list[Wanted],
        takers: np.ndarray,
        rows: int,
    ) -> Iterator[Batch]:
        """A batch for each step, of the rows at these places of the order.

        Args:
            takers: int64 [windows], how many workers need rows of each.
            rows: how many are decoded ahead, see `Ahead`.
        """
        stream, most = self.stream, WINDOW_BYTES // max(1, int(np.prod(self.stream.shape)))
        ahead = Ahead(wanted, partial(self._open, order, takers), stream.decoder.at_once, max(1, rows), most)
        try:
            for step, places in slots:
                ahead.at(step)
                yield self._batch(order, ahead, places)
        finally:
            ahead.end()

    def _batch(self, order: EpochOrder, ahead: Ahead, slots: np.ndarray) -> Batch:
        pixels, windows = np.empty((len(slots), *self.stream.shape), np.uint8), order.window(slots)
        taken = []
        for number in np.unique(windows).tolist():
            into = np.flatnonzero(windows == number)
            places = slots[into] - order.cuts[number]
            taken.append(ahead.window(number).take(places, pixels, into, self.stream.note_unreadable))
        if not taken:
            return Batch(
                torch.from_numpy(pixels).permute(0, 3, 1, 2), as_targets(self._labels_of(slots)), _tensor(slots)
            )
        where, labels, ids, unreadable = zip(*taken, strict=True)
        back = np.argsort(np.concatenate(where))
        ordered = concatenate(labels)[back]
        if len(odd := np.flatnonzero(np.concatenate(unreadable)[back])):
            mark_unreadable(ordered, odd)
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2), as_targets(ordered), _tensor(np.concatenate(ids)[back])
        )

    def _open(self, order: EpochOrder, takers: np.ndarray, number: int) -> tuple[Window, list[Callable[[], Pending]]]:
        """A window, and how to decode each of its pieces."""
        ids = order.ids(number)
        submits: list[Callable[[], Pending]] = []
        for (part, _, _), of_piece in zip(order.pieces(number), ids, strict=True):
            rows = of_piece - self.stream.starts[part]
            submits.append(partial(self._submit, part, rows.tolist(), int(takers[number])))
        return Window(ids, order.within(np.concatenate(ids))), submits

    # ── any rows ────────────────────────────────────────────────────────────────────────────────────────────────────

    def order(self, key: int) -> Tensor:
        """int64 [rows]: an order that depends only on the key and needs few parts at a time."""
        return self.some_rows(key, len(self))

    def some_rows(self, key: int, count: int) -> Tensor:
        count = min(count, len(self))
        if self.some is None:
            return permutation(key, len(self))[:count]
        return torch.from_numpy(self.dealt(key, 1, 1).positions(np.arange(count)))

    def batches(self, positions: Iterable[Tensor]) -> Iterator[Batch]:
        chunks = list(positions)
        ids = self._ids(torch.cat(chunks).numpy()) if chunks else np.empty(0, np.int64)
        windows = _one_ahead(self._window(ids[start:end]) for start, end in pairwise(self._cuts(ids)))
        pixels, labels = np.empty((0, *self.stream.shape), np.uint8), self._labels_of(ids[:0])
        labels = labels.blank() if isinstance(labels, Unread) else labels
        used = done = 0
        for chunk in chunks:
            parts: list[tuple[np.ndarray, Labels]] = []
            missing = len(chunk)
            while len(labels) - used < missing:  # windows are not joined by copying: only a batch that spans two is
                if used < len(labels):
                    parts.append((pixels[used:].copy(), labels[used:]))
                    missing -= len(labels) - used
                del pixels  # frees the window before the next one arrives
                pixels, labels = next(windows)
                used = 0
            parts.append((pixels[used : used + missing], labels[used : used + missing]))
            inputs = parts[0][0] if len(parts) == 1 else np.concatenate([each for each, _ in parts])
            yield Batch(
                torch.from_numpy(inputs).permute(0, 3, 1, 2),
                as_targets(parts[0][1] if len(parts) == 1 else concatenate([each for _, each in parts])),
                torch.from_numpy(ids[done : done + len(chunk)]),
            )
            used, done = used + missing, done + len(chunk)

    def _part_of(self, ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.stream.starts, ids, side="right") - 1

    def _cuts(self, ids: np.ndarray) -> list[int]:
        """The positions, start and end included, where the sequence can be cut without needing a part on both sides."""
        part_of, index = self._part_of(ids), np.arange(len(ids))
        last = np.zeros(len(self.stream.source.parts), np.int64)
        np.maximum.at(last, part_of, index)
        ends = np.flatnonzero(np.maximum.accumulate(last[part_of]) == index) + 1
        return [0, *ends.tolist()]

    def _window(self, ids: np.ndarray) -> tuple[np.ndarray, Labels]:
        """(pixels, labels) of these rows, in this order. Reads each part once."""
        stream = self.stream
        pixels = np.empty((len(ids), *stream.shape), np.uint8)
        labels = self._labels_of(ids)
        masks = isinstance(labels, Unread)
        if isinstance(labels, Unread):  # masks are read with their images
            labels = labels.blank()
        part_of = self._part_of(ids)
        tasks = deque(np.unique(part_of).tolist())
        pending: deque[tuple[np.ndarray, Pending]] = deque()
        while tasks or pending:
            while tasks and len(pending) < stream.decoder.at_once:
                number = tasks.popleft()
                places = np.flatnonzero(part_of == number)
                rows = (ids[places] - stream.starts[number]).tolist()
                pending.append((places, self._submit(number, rows)))
            places, decoding = pending.popleft()
            decoded = decoding.result()
            pixels[places] = decoded.pixels
            if masks:
                labels[places] = decoded.labels
            for row, why in decoded.unreadable:
                mark_unreadable(labels, places[[row]])
                stream.note_unreadable(int(ids[places[row]]), why)
        return pixels, labels

    def _submit(self, number: int, rows: list[int], takers: int = 1) -> Pending:
        return self.stream.decoder.submit(self.stream.source.parts[number], rows, self.stream.wanted, number, takers)


def _wanted(order: EpochOrder, used: np.ndarray, first: np.ndarray, last: np.ndarray) -> list[Wanted]:
    rows = order.cuts[used + 1] - order.cuts[used]
    return [Wanted(*map(int, each)) for each in zip(used, first, last, rows, strict=True)]


def _tensor(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers.astype(np.int64, copy=False))


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each produced in a thread while the previous one is used."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="window")
    try:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
