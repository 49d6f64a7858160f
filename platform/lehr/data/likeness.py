"""Which images are the same, and which nearly: pure functions of their pixels.

**The same**: every pixel is. **Nearly the same**: saved again, resized, brighter or darker, mirrored (`mirrored`); a
crop only where it takes away little (a pixel of 32 on each side is found once in five).
Two signs must agree: the difference hashes of 64 bits differ in at most `MOST_BITS`, and the images at 16 × 16 pixels
correlate by at least `LEAST_CORRELATION`. The hash alone takes two smooth skies for one. Images without contrast are
not compared.

The difference hash compares each of 9 × 8 grey pixels with its right neighbour (N. Krawetz, "Kind of like that", 2013).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

MOST_BITS, LEAST_CORRELATION = 8, 0.975
SIDE = 16
LEAST_DEVIATION = 4.0
"""Of the grey values at 16 × 16 pixels, 0 to 255; images with less have no contrast."""
SAMPLED = 192
"""Values of an image that are compared first."""
AT_ONCE = 1 << 23  # pairs of hashes that are compared together
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Likeness:
    """What rows of images are compared by.

    Attributes:
        hashes: uint64 [rows], the difference hash.
        small: float32 [rows, 256], grey at 16 × 16 pixels, with mean 0 and norm 1; zero for those without contrast.
    """

    hashes: np.ndarray
    small: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    def at(self, rows: np.ndarray) -> Likeness:
        return Likeness(self.hashes[rows], self.small[rows])


def likeness(pixels: np.ndarray) -> Likeness:
    """Of uint8 images [rows, height, width, channels] of one size."""
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float()
    weights = torch.tensor(GREY) if images.shape[1] >= 3 else torch.ones(1)
    grey = (images[:, : len(weights)] * weights[:, None, None]).sum(1, keepdim=True)
    coarse = adaptive_avg_pool2d(grey, (8, 9)).squeeze(1).numpy()
    bits = (coarse[:, :, 1:] > coarse[:, :, :-1]).reshape(len(coarse), 64)
    hashes = np.packbits(bits, axis=1).view(np.uint64).reshape(-1)
    small = adaptive_avg_pool2d(grey, (SIDE, SIDE)).flatten(1).numpy()
    small = small - small.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(small, axis=1, keepdims=True)
    flat = norm < LEAST_DEVIATION * SIDE
    return Likeness(hashes, np.where(flat, 0, small / np.maximum(norm, 1e-6)).astype(np.float32))


def mirrored(like: Likeness) -> Likeness:
    """Of the same images with left and right exchanged. Where neighbours are equal, bits of the hash may differ."""
    rows = np.unpackbits(like.hashes.view(np.uint8).reshape(-1, 8, 1), axis=2)  # a byte for each of the 8 rows
    hashes = np.packbits(1 - rows[:, :, ::-1], axis=2).reshape(-1, 8).view(np.uint64).reshape(-1)
    small = like.small.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(-1, SIDE * SIDE)
    return Likeness(hashes, np.ascontiguousarray(small))


def near_pairs(ours: Likeness, theirs: Likeness | None = None, until: float = np.inf) -> tuple[np.ndarray, int]:
    """(pairs, rows): int64 [pairs, 2], rows of `ours` and of `theirs` that are nearly the same, and how many rows of
    `ours` were compared with all of `theirs` before the time `until` (`time.monotonic()`).

    Without `theirs`, rows of `ours` among each other, each pair once.
    """
    other = ours if theirs is None else theirs
    found = [np.empty((0, 2), np.int64)]
    step = max(1, AT_ONCE // max(1, len(other)))
    done = 0
    for start in range(0, len(ours), step):
        if time.monotonic() > until:
            break
        rows = slice(start, min(start + step, len(ours)))
        differ = np.bitwise_count(ours.hashes[rows, None] ^ other.hashes[None, :])
        mine, its = np.nonzero(differ <= MOST_BITS)
        mine = mine + start
        if theirs is None:
            mine, its = mine[mine < its], its[mine < its]
        alike = _correlation(ours.small, other.small, mine, its) >= LEAST_CORRELATION
        found.append(np.stack([mine[alike], its[alike]], axis=1))
        done = rows.stop
    return np.concatenate(found), done


def _correlation(ours: np.ndarray, theirs: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    parts = [
        np.einsum("ij,ij->i", ours[rows[at : at + 65536]], theirs[others[at : at + 65536]])
        for at in range(0, len(rows), 65536)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


# ── the same ────────────────────────────────────────────────────────────────────────────────────────────────────────


def digest(pixels: np.ndarray) -> bytes:
    """16 bytes that two images share exactly if they have the same shape and pixels; none for an image of one value."""
    if not pixels.size or pixels.min() == pixels.max():
        return b""
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def same_pairs(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """int64 [pairs, 2]: rows of ours, each with the first of theirs that has the same pixels, if any has.

    A few values of each image are compared first, so that most images are never read whole.

    Args:
        ours, theirs: uint8 [images, height, width, channels], and int64, which of them are meant.
    """
    flat = [pixels.reshape(len(pixels), -1) for pixels, _ in (ours, theirs)]
    places = np.unique(np.linspace(0, flat[0].shape[1] - 1, SAMPLED).astype(np.int64))
    known: dict[bytes, list[int]] = {}
    for row, sample in _samples(flat[1], theirs[1], places):
        known.setdefault(sample, []).append(row)
    digests: dict[int, bytes] = {}
    pairs = []
    for row, sample in _samples(flat[0], ours[1], places):
        for other in known.get(sample, ()):
            if other not in digests:
                digests[other] = digest(theirs[0][other])
            if digests[other] and digests[other] == digest(ours[0][row]):
                pairs.append((row, other))
                break
    return np.array(pairs, np.int64).reshape(-1, 2)


def _samples(flat: np.ndarray, rows: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(rows), 4096):
        some = rows[start : start + 4096]
        for row, sample in zip(some.tolist(), flat[some[:, None], places[None, :]], strict=True):
            yield row, sample.tobytes()
