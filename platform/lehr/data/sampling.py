"""Sampling of an epoch's rows other than each row once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lehr.data.randomness import bits, permutation


def balanced(labels: Tensor) -> Callable[[int], Tensor]:
    """Class-balanced orders: as many rows as there are, every class equally often, as a pure function of a key.

    Rows of rare classes are repeated; rows of frequent classes are not in every epoch. Within a class, no row is
    repeated before all others were used. If the rows do not divide evenly, the counts of the classes differ by one.

    Args:
        labels: int64 [rows].

    Returns:
        A function from a key to positions, int64 [rows].
    """
    rows = [torch.nonzero(labels == label).flatten() for label in labels.unique().tolist()]

    def order(key: int) -> Tensor:
        share, more = divmod(len(labels), len(rows))
        larger = set(permutation(~key, len(rows))[:more].tolist())  # the classes with one row more
        chosen = []
        for number, of_class in enumerate(rows):
            wanted = share + (number in larger)
            rounds = range(1, 1 - (-wanted // len(of_class)))
            drawn = [of_class[torch.argsort(bits(key, of_class, draw))] for draw in rounds]
            chosen.append(torch.cat([of_class[:0], *drawn])[:wanted])
        return torch.cat(chosen)[permutation(key, len(labels))]

    return order
