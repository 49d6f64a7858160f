"""Ray's side of the data: decode once with Ray Data, share the result with every worker through the object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from lehr.data.dataset import Images
from lehr.data.decode import decode
from lehr.data.load import join
from lehr.data.sources import Part, Source


class _Parts(Datasource):
    """A source's parts, each decoded where it is read."""

    def __init__(self, source: Source, size: tuple[int, int] | None) -> None:
        super().__init__()
        self._source, self._size = source, size

    def get_name(self) -> str:
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **options: Any) -> list[ReadTask]:
        return [
            ReadTask(
                lambda part=part, number=number: [_block(part, number, self._size)],
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
            )
            for number, part in enumerate(self._source.parts)
        ]


def _block(part: Part, number: int, size: tuple[int, int] | None) -> pa.Table:
    """One row per part, with the decoded arrays as raw bytes: nothing is copied row by row on the way to the cache."""
    pixels, labels = decode(part.read(), size)
    return pa.table(
        {
            "part": [number],
            "shape": [list(pixels.shape)],
            "pixels": pa.array([pixels.tobytes()], pa.large_binary()),
            "labels": pa.array([labels.tobytes()], pa.large_binary()),
        }
    )


def read_with_ray(source: Source, size: tuple[int, int] | None) -> Images:
    """Decodes a whole source with Ray Data, part by part on the cluster's CPUs."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.read_datasource(_Parts(source, size), override_num_blocks=len(source.parts))
    pieces: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for row in dataset.iter_rows():
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape([int(n) for n in row["shape"]])
        pieces[row["part"]] = (pixels, np.frombuffer(row["labels"], np.int64))
    return join((pieces[number] for number in sorted(pieces)), source)


@dataclass(frozen=True)
class Shared:
    """Decoded images in Ray's object store. Processes on one node map the same memory; opening costs milliseconds."""

    pixels: ray.ObjectRef
    labels: ray.ObjectRef
    classes: tuple[str, ...]

    @classmethod
    def put(cls, images: Images) -> Shared:
        return cls(ray.put(images.pixels), ray.put(images.labels), images.classes)

    def open(self) -> Images:
        pixels, labels = ray.get([self.pixels, self.labels])
        return Images(pixels, labels, self.classes)
