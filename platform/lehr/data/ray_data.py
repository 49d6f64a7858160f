"""The data on Ray: decoded once with Ray Data, shared with every worker through the object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext

from lehr import own_modules
from lehr.data.dataset import Images
from lehr.data.decode import Decoded
from lehr.data.labels import from_column
from lehr.data.pixels import PixelFormat, channels_last
from lehr.data.ray_blocks import Held, Written, taken
from lehr.data.ray_decode import RayDecoder
from lehr.data.ray_read import Parts
from lehr.data.reading import assemble, read
from lehr.data.sources.base import ErrorFactory, LabelledPart, Part, Source
from lehr.data.sources.image_columns import COLUMNS
from lehr.data.sources.tabular import TablePart
from lehr.data.sources.written import most_held
from lehr.data.streaming import Decoder, Stream
from lehr.errors import LehrError

STORE_SHARE = 0.3  # of the smallest object store, that the blocks of a user's dataset may take
FEW_IMAGES = 5000
"""Up to this many images are decoded by the calling process, faster than the actors of Ray Data start."""


def read_anywhere(source: Source, wanted: PixelFormat, skip: float = 0.0, *, free_of_cpus: int | None = None) -> Images:
    """Decodes a whole source: few images in this process, more with Ray Data (see `read_with_ray`)."""
    if source.rows <= FEW_IMAGES:
        return read(source, wanted, skip)
    return read_with_ray(source, wanted, skip, free_of_cpus=free_of_cpus)


def read_with_ray(source: Source, wanted: PixelFormat, skip: float = 0.0, *, free_of_cpus: int | None = None) -> Images:
    """Decodes a whole source with Ray Data, part by part on the cluster's CPUs.

    Args:
        free_of_cpus: for a cluster whose CPUs may all be held by whoever waits for the images: run this many tasks at a
            time that request no CPU.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    how: dict[str, Any] = {} if free_of_cpus is None else {"num_cpus": 0, "concurrency": free_of_cpus}
    dataset = ray.data.read_datasource(Parts(source, wanted), override_num_blocks=len(source.parts), **how)
    return assemble(_pieces(dataset), source, skip)


def _pieces(dataset: ray.data.Dataset) -> Iterator[tuple[int, Decoded]]:
    """The decoded parts in the order in which they become ready, as views of the object store."""
    for table in dataset.iter_batches(batch_size=1, batch_format="pyarrow"):
        assert isinstance(table, pa.Table)
        yield piece(table)


def piece(table: pa.Table) -> tuple[int, Decoded]:
    """The number of a part and its decoded rows, from the block that `Parts` makes of it."""
    number, shape = table["part"][0].as_py(), table["shape"][0].as_py()
    pixels = np.frombuffer(table["pixels"][0].as_buffer(), np.uint8).reshape(shape)
    labels = from_column(table["labels"][0].values)
    unreadable = zip(table["unreadable"][0].as_py(), table["why"][0].as_py(), strict=True)
    return number, Decoded(pixels, labels, tuple(unreadable))


@dataclass(frozen=True)
class Shared:
    """Decoded images in Ray's object store. Processes on a node map the same memory; opening takes milliseconds."""

    pixels: ray.ObjectRef
    labels: ray.ObjectRef
    classes: tuple[str, ...]
    unreadable: tuple[int, ...] = ()
    groups: ray.ObjectRef | None = None

    @classmethod
    def put(cls, images: Images) -> Shared:
        groups = None if images.groups is None else ray.put(images.groups)
        return cls(ray.put(images.pixels), ray.put(images.labels), images.classes, images.unreadable, groups)

    def open(self) -> Images:
        pixels, labels = ray.get([self.pixels, self.labels])
        groups = None if self.groups is None else ray.get(self.groups)
        return Images(pixels, labels, self.classes, self.unreadable, groups)


@dataclass(frozen=True)
class SharedStream:
    """A stream that every worker can open: its list of parts and its labels are in Ray's object store."""

    source: ray.ObjectRef
    labels: ray.ObjectRef
    wanted: PixelFormat
    skip: float
    decoder: Decoder

    @classmethod
    def put(cls, stream: Stream) -> SharedStream:
        """Raises TypeError for a stream that only this process can decode."""
        if not isinstance(stream.decoder, RayDecoder):
            raise TypeError("only a stream that Ray decodes can be shared")
        decoder = stream.decoder.of_stream()
        return cls(ray.put(stream.source), ray.put(stream.labels), stream.wanted, stream.skip, decoder)

    def open(self) -> Stream:
        source, labels = ray.get([self.source, self.labels])
        return Stream(source, labels, self.wanted, self.decoder, self.skip)


Handle = Shared | SharedStream
"""The rows of one split, as another process opens them: `handle.open()`."""


def smallest_store() -> int:
    """Bytes of the smallest node's object store."""
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    return int(min(stores, default=0))


@dataclass
class RayHost:
    """A Ray cluster: images lie in its object stores, its CPUs decode.

    Attributes:
        decode_at_once: parts of a streamed set that are decoded at the same time.
        spare_cpus: whether CPUs are left beside the workers; see `RayDecoder`.
        free_of_cpus: as `read_with_ray` has it.
    """

    decode_at_once: int = 2
    spare_cpus: bool = False
    free_of_cpus: int | None = None
    held_bytes: int = 0

    def room(self) -> tuple[int, str]:
        return smallest_store(), "the smallest object store"

    def has_gpu(self) -> bool:
        return ray.cluster_resources().get("GPU", 0) > 0

    def read(self, source: Source, wanted: PixelFormat, skip: float) -> Images:
        return read_anywhere(source, wanted, skip, free_of_cpus=self.free_of_cpus)

    def decoder(self) -> RayDecoder:
        return RayDecoder(self.decode_at_once, self.spare_cpus)


def share(data: Mapping[str, Images | Stream]) -> dict[str, Handle]:
    """The rows of each split as handles that any process of the cluster can open."""
    return {
        name: Shared.put(rows) if isinstance(rows, Images) else SharedStream.put(rows) for name, rows in data.items()
    }


@dataclass(frozen=True)
class BlockPart:
    """One block of a Ray Dataset."""

    ref: ray.ObjectRef
    rows: int
    first: int
    of_rows: np.ndarray

    def labels(self) -> np.ndarray:
        return self.of_rows

    def read(self, rows: Sequence[int] | None = None) -> pa.Table:
        chosen = np.arange(self.rows) if rows is None else np.asarray(rows, np.int64)
        return as_columns(ray.get(self.ref), chosen).append_column("label", pa.array(self.labels()[chosen]))

    def name(self, row: int) -> str:
        return f"row {self.first + row} of the dataset"


def as_columns(table: pa.Table, rows: Sequence[int] | np.ndarray) -> pa.Table:
    """The images of these rows of a block as the columns of a part's table: `image`, `shape` and `dtype`."""
    images: list[bytes | None] = []
    shapes: list[list[int] | None] = []
    dtypes: list[str | None] = []
    kind = table.schema.field("image").type
    for image in (table["image"][int(row)].as_py() for row in rows):
        pixels = None if image is None or isinstance(image, bytes) else _pixels(image, kind)
        images.append(image if pixels is None else pixels.tobytes())
        shapes.append(None if pixels is None else list(pixels.shape))
        dtypes.append(None if pixels is None else pixels.dtype.name)
    return pa.table(
        {
            "image": pa.array(images, pa.large_binary()),
            "shape": pa.array(shapes, pa.list_(pa.int32())),
            "dtype": pa.array(dtypes, pa.string()),
        }
    )


def _pixels(image: Any, kind: pa.DataType) -> np.ndarray:
    """One image of a dataset as [height, width, channels], of the type that its column has.

    Raises LehrError for what is none.
    """
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    dtype = kind.to_pandas_dtype() if pa.types.is_primitive(kind) else None
    try:
        return np.ascontiguousarray(channels_last(np.asarray(image, dtype)))
    except (TypeError, ValueError) as error:
        raise LehrError(f"data: an image of the dataset cannot be read: {error}") from error


def send_by_value() -> None:
    """Functions and classes of the job's own modules reach Ray's workers whole: their processes know no such module."""
    for module in own_modules.loaded():
        ray.cloudpickle.register_pickle_by_value(module)


def is_dataset(returned: Any) -> bool:
    """Whether it is a Ray Dataset."""
    return isinstance(returned, ray.data.Dataset)


ROWS_OF_TORCH = (
    'return ray.data.from_items([{"image": np.asarray(image), "label": int(label)} for image, label in dataset])'
)
"""What makes a Ray Dataset of a torch Dataset of PIL images or arrays."""


def not_a_dataset(dataset: Any, name: str) -> str:
    """Why what a function returned cannot be trained on, with what to write instead; empty if it can.

    The columns are asked for first: a Ray Dataset without them would fail in a task, with Ray's words for that.
    """
    if not isinstance(dataset, ray.data.Dataset):
        is_torch = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        instead = f"; of a torch Dataset, write: {ROWS_OF_TORCH}" if is_torch else ""
        return f"{name} returned a {type(dataset).__name__}; allowed: a ray.data.Dataset{instead}"
    try:
        columns = list(dataset.columns() or ())
    except ray.exceptions.RayError as error:
        return f"the dataset of {name} cannot be read: {str(error).strip().splitlines()[-1]}"
    if missing := [column for column in ("image", "label") if column not in columns]:
        of_torch = f"; instead of ray.data.from_torch, write: {ROWS_OF_TORCH}" if columns == ["item"] else ""
        has = f"it has {', '.join(columns) or 'none'}"
        return f"the dataset of {name} has no column {' and no column '.join(missing)}: {has}{of_torch}"
    return ""


def dataset_source(dataset: Any, name: str, refuse: ErrorFactory) -> Source:
    """A Ray Dataset with columns `image` and `label` as a source; its blocks are held in the object store, or written
    to files if they are more than that should hold (`ray_blocks.py`)."""
    if problem := not_a_dataset(dataset, name):
        raise refuse("data.source", problem)
    most = min(most_held(), int(STORE_SHARE * smallest_store()))
    blocks, note = taken(dataset, as_columns, name, most)
    found = {label for block in blocks for label in block.found}
    if not found:
        raise refuse("data.source", f"the dataset of {name} has no rows")
    if None in found:
        raise refuse("data.source", f"{name} has rows without a label (None); allowed: a label in every row")
    if all(isinstance(value, str) for value in found):
        classes = tuple(sorted(found))
        index = {value: number for number, value in enumerate(classes)}
    elif all(isinstance(value, int) and value >= 0 for value in found):
        classes = tuple(str(number) for number in range(max(found) + 1))
        index = {value: int(value) for value in found}
    else:
        odd = next(each for each in found if not isinstance(each, int) or each < 0)
        raise refuse("data.source", f"{name} has labels such as {odd!r}; allowed: names, or whole numbers from 0")
    parts: list[Part] = []
    first = 0
    for block in blocks:
        of_rows = block.labels(index)
        if isinstance(block, Held) and len(of_rows):
            parts.append(BlockPart(block.ref, len(of_rows), first, of_rows))
        elif isinstance(block, Written):
            parts += [
                LabelledPart(TablePart(chunk, COLUMNS[:1], ready=True), of_rows[chunk.first - first :][: chunk.rows])
                for chunk in block.chunks
            ]
        first += len(of_rows)
    notes = (note,) if note else ()
    return Source(name, tuple(parts), classes, form="a Dataset of Ray", columns=("image", "label"), notes=notes)
