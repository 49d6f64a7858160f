"""Which rows an epoch takes, where that is not simply each of them once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lehr.data.randomness import bits, permutation


def balanced(labels: Tensor) -> Callable[[int], Tensor]:
    """Orders of as many rows as there are, with every class equally often, as a pure function of a key.

    Rows of rare classes come several times, those of frequent ones not in every epoch; within a class none comes again
    before all others have. Classes that do not share the epoch evenly differ by one row.

    Args:
        labels: int64 [rows].

    Returns:
        A function from a key to positions, int64 [rows].
    """
    rows = [torch.nonzero(labels == label).flatten() for label in labels.unique().tolist()]

    def order(key: int) -> Tensor:
        share, more = divmod(len(labels), len(rows))
        odd = set(permutation(~key, len(rows))[:more].tolist())  # the classes with one row more
        chosen = []
        for number, of_class in enumerate(rows):
            wanted = share + (number in odd)
            rounds = range(1, 1 - (-wanted // len(of_class)))
            drawn = [of_class[torch.argsort(bits(key, of_class, draw))] for draw in rounds]
            chosen.append(torch.cat([of_class[:0], *drawn])[:wanted])
        return torch.cat(chosen)[permutation(key, len(labels))]

    return order
