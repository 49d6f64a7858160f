"""How long a training on photographs is: what the data want, as far as the time goes. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from lehr.job.transfer import Strategy

BATCH = 32
UPDATES = 200  # of the weights, after which little is gained by fine-tuning a pretrained network on few photographs
FEWEST_EPOCHS, MOST_EPOCHS = 5, 20
LEAST_EPOCHS = 3  # of fine-tuning that is worth its time: below that, the features alone are used
LEAST_ROWS = 50  # that a first look at many photographs trains on
SCRATCH_UPDATES, FEWEST_SCRATCH, MOST_SCRATCH = 600, 20, 60
"""The same of a network without pretrained weights."""
USUAL_MINUTES = 10.0  # at most, if the user does not say
MOST_VALIDATION = 2000  # rows to measure with: more say little more, and cost time
SHARE = 0.2
HEAD_FIRST = 0.2  # of a fine-tuning, in which only the head is trained; see `FinetuneSection`
EVALUATED = 1024  # training rows that are evaluated after each epoch
SIMILARITY_ROWS = 2000  # whose features are computed a second time, with random weights
HEAD_SECONDS, EPOCH_SECONDS = 8.0, 1.0
"""Finding a head on features; what an epoch takes besides its rows, such as its checkpoint."""
RAY_SECONDS, IMPORTS = 8.0, 3.0
"""Starting Ray; and how many times as long as this process its workers and Ray's take to import what they need."""


@dataclass(frozen=True)
class Costs:
    """What was measured on this machine, in seconds for one photograph.

    Attributes:
        forward: through the network, with all cores; step: a training step of it, with the cores of one training.
        decode: read and decoded, with all cores.
        imports: what this process took to import torch and the like; not for one photograph.
        busy: how many times as long everything takes while other programs use the machine as they did just now.
    """

    forward: float
    step: float
    decode: float = 0.0
    imports: float = 4.0
    busy: float = 1.0

    @property
    def as_busy(self) -> Costs:
        """The same while the machine stays as busy as it is."""
        scaled = (each * self.busy for each in (self.forward, self.step, self.decode, self.imports))
        return Costs(*scaled)


@dataclass(frozen=True)
class Work:
    """What there is to train on.

    Attributes:
        rows, validation, test: photographs of each split.
    """

    rows: int
    validation: int
    test: int
    costs: Costs

    @property
    def start(self) -> float:
        """Seconds until anything is trained."""
        return RAY_SECONDS + IMPORTS * self.costs.imports

    def seconds(self, strategies: Sequence[Strategy], epochs: float, rows: int | None = None) -> float:
        """How long a training takes, from the command to its end.

        Args:
            strategies: of a transfer; none: from scratch, and without features.
            rows: how many of the photographs it trains on; by default all.
        """
        some, costs = self.rows if rows is None else rows, self.costs
        total = self.start + (self.rows + self.validation + self.test) * costs.decode
        if "features" in strategies:
            # Validation rows pass twice: once more for the answers in the report.
            passes = some + 2 * self.validation + self.test + min(some, SIMILARITY_ROWS)
            total += HEAD_SECONDS + passes * costs.forward
        measured = (self.validation + min(some, EVALUATED)) * costs.forward + EPOCH_SECONDS
        for way in strategies or ("scratch",):
            if way != "features":
                alone = HEAD_FIRST * max(0.0, costs.step - costs.forward) if way == "finetune" else 0.0
                total += epochs * (some * (costs.step - alone) + measured)
        return total


@dataclass(frozen=True)
class Length:
    """How much is trained.

    Attributes:
        strategies: of a transfer; empty without pretrained weights.
        epochs: of the fine-tuning, or from scratch.
        limit: train on this many photographs only; None: on all.
        seconds: how long it takes, about.
    """

    strategies: tuple[Strategy, ...]
    epochs: int
    limit: int | None
    seconds: float


def validation_share(rows: int) -> float:
    """The share of so many photographs to hold out: a fifth, and of very many, what is enough to measure with."""
    return round(min(SHARE, max(MOST_VALIDATION / rows, 0.01)), 3)


def fit_length(work: Work, minutes: float, *, pretrained: bool) -> Length:
    """The longest training that fits into the time, up to what the data want.

    With pretrained weights: fine-tuning beside the features, else the features alone, else those of some photographs.

    Args:
        minutes: that it may take; it takes longer only where the least that makes sense does.
    """
    ways: tuple[Strategy, ...] = ("features", "finetune") if pretrained else ()
    seconds = 60 * max(minutes, minutes / 2 + work.start / 60)  # half of it trains, however slowly a machine starts
    least, wanted = (LEAST_EPOCHS, _wanted(work.rows)) if pretrained else (1, _wanted_from_scratch(work.rows))
    fixed = work.seconds(ways, 0)
    each = work.seconds(ways, 1) - fixed
    room = (seconds - fixed) / each
    epochs = wanted if room >= wanted else max(0, math.floor(room))
    if epochs >= least:
        return Length(ways, epochs, None, work.seconds(ways, epochs))
    ways, epochs = (("features",), wanted) if pretrained else ((), 1)
    takes = range(work.rows + 1)
    most = bisect_right(takes, seconds, key=lambda rows: work.seconds(ways, epochs, rows)) - 1
    some = max(min(work.rows, LEAST_ROWS), most)
    return Length(ways, epochs, some if some < work.rows else None, work.seconds(ways, epochs, some))


def _wanted(rows: int) -> int:
    """Epochs of fine-tuning."""
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(UPDATES * BATCH / rows)))


def _wanted_from_scratch(rows: int) -> int:
    return min(MOST_SCRATCH, max(FEWEST_SCRATCH, math.ceil(SCRATCH_UPDATES * BATCH / rows)))
