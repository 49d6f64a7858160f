"""Random numbers as pure functions of (seed, purpose, epoch, row): no generator, hence no state to restore.

The order of an epoch, the validation split and each row's augmentation come from here. Because a number depends on the
row and not on the worker that draws it, 1, 2 and 4 workers see the same batches with the same augmentation, on CPU and
on GPU, and a resumed run sees what an uninterrupted one would have seen.

The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014). torch's int64 arithmetic wraps around, so it equals unsigned arithmetic modulo 2^64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]
"""draw(k): the k-th random number of every row in this epoch, float64 [rows] in [0, 1)."""

_GAMMA = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_M1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_M2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def _wrap(number: int) -> int:
    """A Python integer as a signed 64-bit one, wrapping around."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) right shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _M1
    z = (z ^ _shift_right(z, 27)) * _M2
    return z ^ _shift_right(z, 31)


def key(seed: int, purpose: str, *counters: int) -> int:
    """A signed 64-bit key for one stream of numbers: `key(seed, "order", epoch)`."""
    text = ":".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def bits(key: int, rows: Tensor, draw: int = 0) -> Tensor:
    """int64 [rows]: 64 random bits for each row id. `draw` numbers the independent draws of one row."""
    return _mix(_mix(rows.to(torch.int64) * _GAMMA + key) + _wrap((draw + 1) * _GAMMA))


def uniform(key: int, rows: Tensor, draw: int = 0) -> Tensor:
    """float64 [rows] in [0, 1), one number for each row id, on the device of `rows`."""
    return draws(key, rows)(draw)


def draws(key: int | Tensor, rows: Tensor) -> Draw:
    """`uniform(key, rows, draw)` as a function of `draw`. The row ids are hashed once for all draws."""
    hashed = _mix(rows.to(torch.int64) * _GAMMA + key)

    def draw(number: int) -> Tensor:
        return _shift_right(_mix(hashed + _wrap((number + 1) * _GAMMA)), 11).to(torch.float64) * 2.0**-53

    return draw


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds torch's own generators, from which dropout and the like draw.

    On a machine without a GPU `torch.manual_seed` would note who seeds the GPUs to come, which takes longer than a
    small network's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def permutation(key: int, count: int) -> Tensor:
    """int64 [count]: the numbers 0 … count − 1 in an order fixed by the key."""
    return torch.argsort(bits(key, torch.arange(count)), stable=True)
