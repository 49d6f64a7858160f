"""What rows cost beside their pixels: a bit each for a split, nothing for their order. Whole processes are measured by
`tests/benchmarks/data_memory.py`."""

from __future__ import annotations

import tracemalloc

import numpy as np
import torch
from tests.benchmarks.data_memory import CLASSES, SIDE, ComputedPart
from tests.support import tiny

from lehr.data import streaming
from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.load import splits
from lehr.data.pixels import PixelFormat
from lehr.data.reading import small_labels
from lehr.data.sources.base import Source
from lehr.data.streaming import Stream, StreamedSubset, ThreadDecoder


def test_four_million_rows_are_split_ordered_and_streamed_without_a_number_for_each() -> None:
    rows, part = 4_000_000, 500
    source = Source(
        "computed", tuple(ComputedPart(at, part) for at in range(0, rows, part)), tuple(map(str, range(CLASSES)))
    )
    labels = small_labels(source)
    assert labels.dtype == np.int8
    job = tiny(data={"source": "digits", "cache": "stream", "limit": None})
    stream = Stream(source, labels, PixelFormat((SIDE, SIDE), 3), ThreadDecoder(1))
    before, streaming.WINDOW_BYTES = streaming.WINDOW_BYTES, 1 << 20
    warm = stream.rows(torch.arange(100))
    next(batches(warm, warm.sampler(8, 0, 1), Augment([], 0), 0))  # what decoding imports is no matter here
    tracemalloc.start()
    try:
        train = splits(job, {"train": stream}).train
        assert isinstance(train, StreamedSubset)
        sampler = train.sampler(256, 0, 16)
        found = batches(train, sampler, Augment([], 0), 0, first=1000)
        for _ in range(3):
            batch = next(found)
        assert torch.equal(batch.targets, torch.from_numpy(labels[batch.ids.numpy()].astype(np.int64)))
        train.some_rows(3, 500)
        assert train.class_counts().sum() == len(train) == 0.8 * rows
        most = tracemalloc.get_traced_memory()[1]
    finally:
        streaming.WINDOW_BYTES = before
        tracemalloc.stop()
    assert most < 6 * rows  # one list of all rows takes eight bytes each
