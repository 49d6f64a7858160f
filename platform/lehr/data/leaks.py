"""Validation and test rows that are training rows too, told before training starts.

Rows with the same pixels are always found. Nearly the same ones are looked for within `NEAR_SECONDS`: among all rows
where that is enough, else among those that time allows, drawn by the seed. Images that are decoded during training are
not compared here: `lehr data show` reads them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np

from lehr.data.likeness import Likeness, likeness, near_pairs, same_pairs
from lehr.data.randomness import key, permutation

NEAR_SECONDS = 3.0
CHUNK_BYTES = 8 << 20
LEAST_SIDE = 24
"""Pixels of the shorter side of images that are compared for likeness: digits of 8 × 8 pixels are all alike."""

Rows = tuple[np.ndarray, np.ndarray]
"""uint8 [images, height, width, channels], and int64 [rows], which of them are meant."""


def leaks(splits: Mapping[str, Rows], seed: int = 0, near_seconds: float = NEAR_SECONDS) -> Iterator[str]:
    """A sentence for each split besides `train` that has rows of it."""
    until = time.monotonic() + near_seconds
    for name, rows in splits.items():
        if name == "train" or not len(rows[1]) or not len(splits["train"][1]):
            continue
        same = {row for row, _ in same_pairs(rows, splits["train"]).tolist()}
        rest = np.array([row for row in rows[1].tolist() if row not in same], np.int64)
        near, looked = _near((rows[0], rest), splits["train"], seed, until)
        if same or near:
            yield _sentence(name, len(rows[1]), len(same), near, looked == len(rest), looked)


def _sentence(split: str, rows: int, same: int, near: int, every: bool, looked: int) -> str:
    parts = [f"{same:,} with the same pixels"] if same else []
    parts += [f"{near:,} nearly the same{'' if every else f' (of {looked:,} that were compared)'}"] if near else []
    return (
        f"leak: of {rows:,} rows for {split}, {' and '.join(parts)} {'is' if same + near == 1 else 'are'} among those "
        "to train on, so what is measured there says less of new images"
    )


def _near(rows: Rows, train: Rows, seed: int, until: float) -> tuple[int, int]:
    """How many rows are nearly training rows, and how many were compared with those that time allowed."""
    pixels, ours = rows
    if min(pixels.shape[1:3]) < LEAST_SIDE or not len(ours):
        return 0, len(ours)
    now = time.monotonic()
    mine, looked = _some(pixels, ours, seed, now + (until - now) / 4)
    its, _ = _some(*train, seed, now + (until - now) * 3 / 4)
    pairs, compared = near_pairs(mine, its, until)
    return len(np.unique(pairs[:, 0])), min(looked, compared)


def _some(pixels: np.ndarray, rows: np.ndarray, seed: int, until: float) -> tuple[Likeness, int]:
    """The likeness of rows in an order drawn by the seed, as many as time allows."""
    order = rows[permutation(key(seed, "leaks"), len(rows)).numpy()]
    step = max(1, CHUNK_BYTES // max(1, int(np.prod(pixels.shape[1:]))))
    found, done = [likeness(pixels[order[:step]])], min(step, len(order))
    while done < len(order) and time.monotonic() < until:
        found.append(likeness(pixels[order[done : done + step]]))
        done = min(done + step, len(order))
    return Likeness(np.concatenate([f.hashes for f in found]), np.concatenate([f.small for f in found])), done
