"""The data as training sees them: decoded rows in shared memory, their splits, and the batches of an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehr.data.epoch_order import EpochOrder, slices
from lehr.data.labels import Labels
from lehr.data.randomness import key, permutation
from lehr.data.row_sets import RowSet, first_of_order, pieces
from lehr.data.targets import as_targets
from lehr.tasks.forms import UNREADABLE

__all__ = [
    "UNREADABLE",
    "Batch",
    "BatchSampler",
    "DataSubset",
    "Images",
    "MixPartners",
    "Splits",
    "random_split",
    "stratified_split",
]


@dataclass(frozen=True)
class Images:
    """Decoded images with their labels, in the order of the source. The arrays may be shared with other processes.

    Attributes:
        pixels: uint8 [rows, height, width, channels], read-only by contract.
        labels: int64 [rows], indices into `classes`; or of another form, see `lehr.data.labels`.
        classes: the names of the classes, or of the numbers, in the order of the labels.
        unreadable: the rows whose image could not be read; their pixels are zero, and no split contains them.
        groups: int64 [rows], equal for rows that must be in one split; None without groups.
    """

    pixels: np.ndarray
    labels: Labels
    classes: tuple[str, ...]
    unreadable: tuple[int, ...] = ()
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, ids: Tensor | RowSet) -> DataSubset:
        """The rows of these ids, without the unreadable ones."""
        ids = torch.from_numpy(ids.ids()) if isinstance(ids, RowSet) else ids
        if self.unreadable:
            ids = ids[~torch.isin(ids, torch.tensor(self.unreadable))]
        return DataSubset(self, ids)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes


class DataSubset:
    """Some rows of an `Images`. Batches are new tensors, so in-place operations on them never change the shared memory.

    Attributes:
        ids: int64 [rows], the row numbers in the source; random numbers are a function of the id.
        classes: the class names in label order.
        decodes_lazily: images are decoded during training and may turn out to be unreadable only then.
    """

    decodes_lazily = False

    def __init__(self, images: Images, ids: Tensor) -> None:
        self.ids = ids
        self.classes = images.classes
        with warnings.catch_warnings():
            # The arrays are read-only. These tensors are private to this class, which only gathers from them.
            warnings.simplefilter("ignore", UserWarning)
            self._pixels = torch.from_numpy(images.pixels)
        self._labels: Any = as_targets(images.labels)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        _, height, width, channels = self._pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device that holds the rows and their batches."""
        return self.ids.device

    def to(self, device: torch.device, copies: dict[int, tuple[Tensor, Any]]) -> DataSubset:
        """The same rows in the memory of a device: batches are gathered there, and no step waits for a copy.

        Args:
            copies: pixels and labels that are there already, by the address of the pixels they were copied from.
                What is copied now is added, so that subsets of the same images share one copy.
        """
        moved, address = object.__new__(DataSubset), self._pixels.data_ptr()
        if address not in copies:
            copies[address] = self._pixels.to(device), self._labels.to(device)
        moved.ids, moved.classes = self.ids.to(device), self.classes
        moved._pixels, moved._labels = copies[address]
        return moved

    @property
    def labels(self) -> Any:
        """int64 [rows]: a new tensor with the label of every row; of another task, its `lehr.data.targets.Targets`."""
        return self._labels.index_select(0, self.ids)

    def labels_at(self, positions: Tensor) -> Any:
        """The labels of the rows at `positions`, as a new tensor or `Targets`."""
        return self._labels.index_select(0, self.ids.index_select(0, positions.to(self.device)))

    def class_counts(self) -> Tensor:
        """int64 [classes]: the rows of each class, of rows that have one each."""
        known = self.labels
        return torch.bincount(known[known >= 0], minlength=len(self.classes)).cpu()

    def gather(self, positions: Tensor) -> Batch:
        """The rows at `positions` (indices into `ids`) as a new batch, on the device of the rows."""
        ids = self.ids.index_select(0, positions.to(self.device))
        return Batch(self._pixels.index_select(0, ids).permute(0, 3, 1, 2), self._labels.index_select(0, ids), ids)

    def batches(self, positions: Iterable[Tensor]) -> Iterator[Batch]:
        """One batch for each of `positions`, in that order."""
        return map(self.gather, positions)

    def share(self, rank: int, workers: int) -> range:
        """The positions of worker `rank` of `workers` where all rows are passed through a network once."""
        return self.share_of(len(self), rank, workers)

    def share_of(self, asked: int, rank: int, workers: int) -> range:
        """The same of so many rows, in their order, that are asked for among them."""
        return range(rank, asked, workers)

    def in_order(self, rank: int, workers: int, batch_size: int) -> Iterator[Batch]:
        """Those rows in batches; an empty batch if there are none."""
        mine = torch.tensor(self.share(rank, workers), dtype=torch.int64)
        return self.batches(mine.split(batch_size) if len(mine) else [mine])

    def order(self, key: int) -> Tensor:
        """int64 [rows]: positions in an order fixed by the key."""
        return permutation(key, len(self))

    def some_rows(self, key: int, count: int) -> Tensor:
        """int64: the first positions of `order(key)`, `count` of them, or all if there are fewer."""
        return self.order(key)[:count]

    def unreadable(self) -> dict[int, str]:
        """By row id, why an image is unreadable that was found so during training. Empty here: all were read before."""
        return {}

    def add_unreadable(self, found: Mapping[int, str]) -> list[str]:
        """Adds the images that other workers found unreadable; returns the names of those not returned before.

        Raises:
            LehrError: there are more than the job allows to skip.
        """
        return []

    def subset(self, positions: Tensor) -> DataSubset:
        """The rows at `positions`, sharing the same memory."""
        chosen = object.__new__(DataSubset)
        chosen.ids, chosen.classes = self.ids.index_select(0, positions.to(self.device)), self.classes
        chosen._pixels, chosen._labels = self._pixels, self._labels
        return chosen


@dataclass
class Batch:
    """A batch of images with their labels.

    Attributes:
        inputs: [rows, channels, height, width], values from 0 to 255: uint8, or float32 after some augmentations.
        targets: int64 [rows]; float64 [rows, classes] if images were mixed; of other tasks a tensor [rows, …] or a
            `lehr.data.targets.RaggedTensor`.
        ids: int64 [rows].
    """

    inputs: Tensor
    targets: Any
    ids: Tensor

    def to(self, device: torch.device) -> Batch:
        if device.type == self.inputs.device.type:
            return self
        each: tuple[Any, ...] = (self.inputs, self.targets, self.ids)
        return Batch(*(part.pin_memory().to(device, non_blocking=True) for part in each))


@dataclass(frozen=True)
class MixPartners:
    """For mixing: which images of a batch a worker trains on, and with which other image each is mixed.

    Attributes:
        own: int64 [rows], indices into the batch.
        others: int64 [rows], the partner of each.
    """

    own: Tensor
    others: Tensor

    def to(self, device: torch.device) -> MixPartners:
        """The same on a device. The copies do not wait for computations on a GPU."""
        return MixPartners(*(index.to(device, non_blocking=True) for index in (self.own, self.others)))


@dataclass(frozen=True)
class Splits:
    """The rows for training and validation and, if the job has any, the test rows, which are scored once at the end."""

    train: DataSubset
    validation: DataSubset
    test: DataSubset | None = None

    @property
    def measured_rows(self) -> dict[str, int]:
        """By split, the rows on which its metrics are measured."""
        return {name: len(rows) for name, rows in (("validation", self.validation), ("test", self.test)) if rows}

    def to(self, device: torch.device) -> Splits:
        """The same splits in the memory of a device. Splits of the same images share one copy."""
        copies: dict[int, tuple[Tensor, Any]] = {}
        test = None if self.test is None else self.test.to(device, copies)
        return Splits(self.train.to(device, copies), self.validation.to(device, copies), test)


def random_split(rows: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits rows into (train ids, validation ids), int64, fixed by the seed; at least one row in each."""
    return _both(held_out_by_chance(rows, share, seed))


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits rows into (train ids, validation ids), int64, as `held_out_by_class` has them."""
    return _both(held_out_by_class(labels, share, seed))


def _both(held_out: RowSet) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(held_out.others().ids()), torch.from_numpy(held_out.ids())


def held_out_by_chance(rows: int, share: float, seed: int) -> RowSet:
    """The rows to hold out, fixed by the seed; at least one, and one is left."""
    count = min(max(round(rows * share), 1), rows - 1)
    return first_of_order(key(seed, "split"), rows, np.array([max(0, count)]))


def held_out_by_class(labels: np.ndarray, share: float, seed: int) -> RowSet:
    """The rows to hold out, of each class in the same proportion, fixed by the seed.

    Every class keeps at least one training row, and gives up at least one validation row if it has two or more.

    Args:
        labels: integers [rows], of any type: no order of the rows is stored.
        share: the share of each class to hold out, between 0 and 1.
        seed: the seed of the split.
    """
    lowest = int(labels.min()) if len(labels) else 0

    def class_of(start: int, end: int) -> np.ndarray:
        found: np.ndarray = labels[start:end].astype(np.int64) - lowest
        return found

    sizes = np.zeros(int(labels.max()) - lowest + 1 if len(labels) else 1, np.int64)
    for start, end in pieces(len(labels)):
        sizes += np.bincount(class_of(start, end), minlength=len(sizes))
    counts = np.minimum(np.maximum(np.rint(sizes * share).astype(np.int64), 1), sizes - 1)
    return first_of_order(key(seed, "split"), len(labels), np.maximum(counts, 0), class_of)


@dataclass(frozen=True)
class BatchSampler:
    """The batches of every epoch as row positions: a pure function of (seed, epoch, step), whatever the workers.

    Batches are global: `Slices` says which rows of each a worker takes. The last batch of an epoch may be smaller.

    Attributes:
        rows: rows in one epoch.
        batch_size: rows in a global batch.
        seed: the seed of the order.
        shuffle: from a key to an order of all rows, int64 [rows]; by default all orders are equally likely.
        shards: data shards of streamed rows (`lehr.data.epoch_order`); of others 1.
        dealt: from a key to the order of streamed rows in shards; None of others.
    """

    rows: int
    batch_size: int
    seed: int
    shuffle: Callable[[int], Tensor] | None = None
    shards: int = 1
    dealt: Callable[[int], EpochOrder] | None = None

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return -(-self.rows // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """int64 [rows]: the row positions of this epoch in order."""
        if order := self.in_shards(epoch):
            return order.whole()
        stream = key(self.seed, "order", epoch)
        return self.shuffle(stream) if self.shuffle else permutation(stream, self.rows)

    def in_shards(self, epoch: int) -> EpochOrder | None:
        """The order of this epoch where it is one in data shards, without a number for each row."""
        return self.dealt(key(self.seed, "order", epoch)) if self.dealt else None

    def size(self, step: int) -> int:
        """Rows in the global batch at `step` of an epoch."""
        return min(self.batch_size, self.rows - step * self.batch_size)

    def own(self, rows: int, rank: int, workers: int) -> np.ndarray:
        """int64, ascending: which rows worker `rank` of `workers` takes of a global batch of so many."""
        return slices(rows, self.shards).own(rank, workers)

    def needed(self, rows: int, rank: int, workers: int) -> tuple[np.ndarray, MixPartners]:
        """Which rows of a global batch of so many a worker needs for mixing, and which of these it trains on.

        The order is random already, so that taking the next row as a partner is as good as drawing one, and every
        worker knows it.
        """
        batch = slices(rows, self.shards)
        own = batch.own(rank, workers)
        needed, index = np.unique(np.concatenate([own, batch.partner()[own]]), return_inverse=True)
        both = torch.from_numpy(index)
        return needed, MixPartners(both[: len(own)], both[len(own) :])

    def reach(self, rank: int, workers: int, *, mixes: bool) -> np.ndarray:
        """int64 [shards]: how many workers need rows of each shard; 0 for a shard that worker `rank` does not need."""
        sizes = {self.size(step) for step in (0, self.steps - 1) if step >= 0}
        found = np.zeros((workers, self.shards), bool)
        for rows in sizes:
            found |= slices(rows, self.shards).reach(workers, mixes=mixes)
        return found.sum(axis=0) * found[rank]

    def positions(self, order: Tensor, step: int, rank: int, workers: int) -> Tensor:
        """int64: the row positions of worker `rank` of `workers` in the batch at `step`, of rows without shards."""
        return order[step * self.batch_size : (step + 1) * self.batch_size][rank::workers]

    def positions_and_partners(self, order: Tensor, step: int, rank: int, workers: int) -> tuple[Tensor, MixPartners]:
        """As `positions`, with the partners that mixing needs."""
        batch = order[step * self.batch_size : (step + 1) * self.batch_size]
        needed, partners = self.needed(len(batch), rank, workers)
        return batch[torch.from_numpy(needed).to(order.device, non_blocking=True)], partners
