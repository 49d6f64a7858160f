"""Rows that are decoded on demand, for data sets that do not fit into memory.

The order of an epoch is fixed by (seed, epoch): the parts are shuffled and collected into windows, and the rows of each
window are shuffled. Each worker decodes only its own rows of each global batch, one window ahead of training. So rows,
batches and steps do not depend on the number of workers, each row occurs once per epoch, and a run can resume at any
step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lehr.data.dataset import Batch, DataSubset
from lehr.data.decode import Decoded, decode
from lehr.data.labels import Labels, Unread, concatenate, mark_unreadable
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import bits
from lehr.data.reading import check_unreadable
from lehr.data.sources.base import Part, Source
from lehr.data.targets import as_targets

WINDOW_BYTES = 256 << 20  # of decoded pixels in a shuffle window; a worker holds its share of two windows
WINDOWS = 8  # the least number of windows per epoch, roughly, so that decoding and training overlap

T = TypeVar("T")


class Pending(Protocol):
    """Rows that are being decoded."""

    def result(self) -> Decoded: ...


class Decoder(Protocol):
    """Decodes rows of parts: in threads of this process, or on Ray."""

    at_once: int
    """How many parts are decoded at the same time."""

    def submit(self, part: Part, rows: list[int], wanted: PixelFormat) -> Pending: ...


class ThreadDecoder:
    """Decodes in threads of this process."""

    def __init__(self, threads: int) -> None:
        self.at_once = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, part: Part, rows: list[int], wanted: PixelFormat) -> Pending:
        return self._pool.submit(decode_rows, part, rows, wanted)


def decode_rows(part: Part, rows: list[int], wanted: PixelFormat) -> Decoded:
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

    def rows(self, ids: Tensor) -> StreamedSubset:
        return StreamedSubset(self, ids)


class StreamedSubset(DataSubset):
    """Some rows of a `Stream`; the interface is that of rows in memory."""

    decodes_lazily = True

    def __init__(self, stream: Stream, ids: Tensor) -> None:
        self.ids, self.classes, self.stream = ids, stream.classes, stream
        self._starts = stream.source.starts

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.stream.shape
        return channels, height, width

    @property
    def labels(self) -> Any:
        return as_targets(self.stream.labels[self.ids.numpy()])

    def gather(self, positions: Tensor) -> Batch:
        return next(self.batches([positions]))

    def subset(self, positions: Tensor) -> StreamedSubset:
        return StreamedSubset(self.stream, self.ids[positions])

    def unreadable(self) -> dict[int, str]:
        return dict(self.stream.unreadable)

    def add_unreadable(self, found: Mapping[int, str]) -> list[str]:
        stream = self.stream
        stream.unreadable.update(found)
        check_unreadable(stream.unreadable, stream.source, stream.skip)
        new = sorted(found.keys() - stream.reported)
        stream.reported.update(new)
        return [f"{stream.source.name_of(row)} ({found[row]})" for row in new]

    def order(self, key: int) -> Tensor:
        """int64 [rows]: an order that depends only on the key and needs few parts at a time."""
        part_of = self._part_of(self.ids.numpy())
        parts, counts = np.unique(part_of, return_counts=True)
        shuffled = np.argsort(bits(key, torch.from_numpy(parts), draw=1).numpy(), kind="stable")
        before = np.cumsum(counts[shuffled]) - counts[shuffled]
        window_of = np.empty(len(parts), np.int64)
        window_of[shuffled] = before // self._window_rows()
        windows = window_of[np.searchsorted(parts, part_of)]
        return torch.from_numpy(np.lexsort((bits(key, self.ids).numpy(), windows)))

    def batches(self, positions: Iterable[Tensor]) -> Iterator[Batch]:
        chunks = list(positions)
        ids = self.ids[torch.cat(chunks)].numpy() if chunks else np.empty(0, np.int64)
        windows = _one_ahead(self._window(ids[start:end]) for start, end in pairwise(self._cuts(ids)))
        pixels, labels = np.empty((0, *self.stream.shape), np.uint8), self.stream.labels[:0]
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

    def _window_rows(self) -> int:
        by_size = WINDOW_BYTES // max(1, int(np.prod(self.stream.shape)))
        return max(1, min(by_size, len(self) // WINDOWS))

    def _part_of(self, ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, ids, side="right") - 1

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
        labels = stream.labels[ids]
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
                rows = (ids[places] - self._starts[number]).tolist()
                pending.append((places, self._submit(number, rows)))
            places, decoding = pending.popleft()
            decoded = decoding.result()
            pixels[places] = decoded.pixels
            if masks:
                labels[places] = decoded.labels
            for row, why in decoded.unreadable:
                mark_unreadable(labels, places[[row]])
                stream.unreadable[int(ids[places[row]])] = why
        check_unreadable(stream.unreadable, stream.source, stream.skip)
        return pixels, labels

    def _submit(self, number: int, rows: list[int]) -> Pending:
        return self.stream.decoder.submit(self.stream.source.parts[number], rows, self.stream.wanted)


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
