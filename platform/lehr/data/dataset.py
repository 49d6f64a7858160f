"""What training sees of the data: decoded rows in shared memory, their splits, and the batches of an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lehr.data.randomness import key, permutation

UNREADABLE = -100
"""The target of a streamed row whose image could not be read: torch's losses and evaluation leave it out."""


@dataclass(frozen=True)
class Images:
    """Decoded images with their labels, in the order of the source. The arrays may be shared with other processes.

    Attributes:
        pixels: uint8 [rows, height, width, channels], read-only by contract.
        labels: int64 [rows], indices into `classes`.
        classes: the class names in label order.
        unreadable: the rows whose image could not be read; their pixels are zero and no split holds them.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    unreadable: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, ids: Tensor) -> DataSubset:
        """The rows of these ids, without the unreadable ones."""
        if self.unreadable:
            ids = ids[~torch.isin(ids, torch.tensor(self.unreadable))]
        return DataSubset(self, ids)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes


class DataSubset:
    """Some rows of an `Images`, gathered into new tensors: in-place work on a batch never reaches the shared memory.

    Attributes:
        ids: int64 [rows], the row numbers in the source; randomness is drawn per id.
        decoded_late: images are decoded while training goes on, and may turn out to be unreadable only then.
    """

    decoded_late = False

    def __init__(self, images: Images, ids: Tensor) -> None:
        self.ids = ids
        self.classes = images.classes
        with warnings.catch_warnings():
            # The arrays are read-only; these tensors are private to this class and only ever gathered from.
            warnings.simplefilter("ignore", UserWarning)
            self._pixels = torch.from_numpy(images.pixels)
            self._labels = torch.from_numpy(images.labels)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        _, height, width, channels = self._pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the rows lie, and their batches."""
        return self.ids.device

    def on(self, device: torch.device, held: dict[int, tuple[Tensor, Tensor]]) -> DataSubset:
        """The same rows in the memory of a device: batches are gathered there, and no step waits for a copy.

        Args:
            held: pixels and labels that lie there already, by the address of the pixels they were copied from.
        """
        moved, address = object.__new__(DataSubset), self._pixels.data_ptr()
        if address not in held:
            held[address] = self._pixels.to(device), self._labels.to(device)
        moved.ids, moved.classes = self.ids.to(device), self.classes
        moved._pixels, moved._labels = held[address]
        return moved

    @property
    def labels(self) -> Tensor:
        """int64 [rows]: a new tensor with the label of every row."""
        return self._labels.index_select(0, self.ids)

    def gather(self, positions: Tensor) -> Batch:
        """The rows at `positions` (indices into `ids`) as a new batch, where the rows lie."""
        ids = self.ids.index_select(0, positions.to(self.device))
        return Batch(self._pixels.index_select(0, ids).permute(0, 3, 1, 2), self._labels.index_select(0, ids), ids)

    def batches(self, positions: Iterable[Tensor]) -> Iterator[Batch]:
        """One batch for each of `positions`, in that order."""
        return map(self.gather, positions)

    def order(self, key: int) -> Tensor:
        """int64 [rows]: positions in an order fixed by the key."""
        return permutation(key, len(self))

    def unreadable(self) -> dict[int, str]:
        """From row id to why, of the images found unreadable since training began; none here: all were read before."""
        return {}

    def learn_unreadable(self, found: Mapping[int, str]) -> list[str]:
        """Takes in what other workers found unreadable; returns the names of all that were not told before.

        Raises:
            LehrError: together they are more than may be skipped.
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
        targets: int64 [rows], or float64 [rows, classes] where images were mixed.
        ids: int64 [rows].
    """

    inputs: Tensor
    targets: Tensor
    ids: Tensor

    def to(self, device: torch.device) -> Batch:
        if device.type == self.inputs.device.type:
            return self
        move = [t.pin_memory().to(device, non_blocking=True) for t in (self.inputs, self.targets, self.ids)]
        return Batch(*move)


@dataclass(frozen=True)
class MixPartners:
    """For mixing: the rows of a batch that a worker trains on, and the partner of each, as indices into the batch."""

    own: Tensor
    partners: Tensor

    def to(self, device: torch.device) -> MixPartners:
        """The same on a device. The copies do not wait for what a GPU computes."""
        return MixPartners(*(index.to(device, non_blocking=True) for index in (self.own, self.partners)))


@dataclass(frozen=True)
class Splits:
    """The rows for training, for validation and, if the job names some, the test rows, scored once at the end."""

    train: DataSubset
    validation: DataSubset
    test: DataSubset | None = None

    def on(self, device: torch.device) -> Splits:
        """The same splits in the memory of a device, each source once."""
        held: dict[int, tuple[Tensor, Tensor]] = {}
        test = None if self.test is None else self.test.on(device, held)
        return Splits(self.train.on(device, held), self.validation.on(device, held), test)


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits rows into (train ids, validation ids), each class in the same proportion, fixed by the seed.

    Every class keeps at least one training row, and gives at least one validation row if it has two or more.

    Args:
        labels: int64 [rows].
        share: the share of each class to hold out, between 0 and 1.
    """
    order = permutation(key(seed, "split"), len(labels)).numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        count = min(max(round(len(of_class) * share), 1), len(of_class) - 1)
        held_out[of_class[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


@dataclass(frozen=True)
class BatchSampler:
    """The batches of every epoch, as row positions: a pure function of (seed, epoch, step), never of the workers.

    Batches are global: worker r of n takes every n-th row from r on. The last batch of an epoch may be smaller.
    """

    rows: int
    batch_size: int
    seed: int
    shuffle: Callable[[int], Tensor] | None = None
    """From a key to an order of all rows; by default every order is as likely as any other."""

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return -(-self.rows // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """int64 [rows]: the order of this epoch."""
        stream = key(self.seed, "order", epoch)
        return self.shuffle(stream) if self.shuffle else permutation(stream, self.rows)

    def size(self, step: int) -> int:
        """Rows in the global batch at `step` of an epoch."""
        return min(self.batch_size, self.rows - step * self.batch_size)

    def positions(self, order: Tensor, step: int, rank: int, workers: int) -> Tensor:
        """The part of the batch at `step` that worker `rank` of `workers` takes."""
        return order[step * self.batch_size : (step + 1) * self.batch_size][rank::workers]

    def pairs(self, order: Tensor, step: int, rank: int, workers: int) -> tuple[Tensor, MixPartners]:
        """As `positions`, with the partners that mixing needs: each row's partner is the next of the global batch.

        The order is random already, so this is as good as drawing partners, and every worker can tell them.
        """
        batch = order[step * self.batch_size : (step + 1) * self.batch_size]
        own = torch.arange(len(batch))[rank::workers]
        needed, index = torch.unique(torch.cat([own, (own + 1) % len(batch)]), return_inverse=True)
        return batch[needed.to(order.device, non_blocking=True)], MixPartners(index[: len(own)], index[len(own) :])
