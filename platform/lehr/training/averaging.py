"""Averages of the weights along the run, evaluated and saved beside the raw ones. The arithmetic is torch's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from lehr.durations import Duration, RunLength
from lehr.job import Averaging
from lehr.schedules import fit
from lehr.training.sync_norm import has_batch_norm

STATISTICS_ROWS = 10_000
_EARLIER = "allowed: earlier, such as train.averaging.start=75%"
SWA_START = Duration(75, "%")


class Average:
    """An average of a model's weights, by name as in its state dict.

    `ema`: a ← decay × a + (1 − decay) × w after every step. Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", 1992, with exponential weights. In the first steps the decay is
    min(decay, (1 + t) / (10 + t)), so that the random start is soon forgotten. Batch-norm statistics are averaged too.

    `swa`: the mean of the weights at `start`, and every `every` from there on. Izmailov et al., "Averaging weights
    leads to wider optima and better generalization", 2018. No batch has passed through such weights, so they have no
    batch-norm statistics of their own until `recompute_statistics`.

    Attributes:
        weights: the average; before it begins, the weights it was made with.
    """

    def __init__(self, section: Averaging, model: nn.Module, length: RunLength, fixed_statistics: bool = False) -> None:
        """Raises ValueError when the average would never begin.

        Args:
            fixed_statistics: training does not change the batch-norm statistics, so the average has the same.
        """
        self._ema = section.kind == "ema"
        self._decay = section.decay or 0.999
        self._start, self._every = averaged_steps(section, length)
        self._recomputes = not self._ema and not fixed_statistics and has_batch_norm(model)
        self._recomputed_at = 0
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def count(self, steps: int) -> int:
        """How many sets of weights are in the average after `steps` optimizer steps."""
        return (steps - self._start) // self._every + 1 if steps >= self._start else 0

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Adds the weights after `steps` optimizer steps, if they belong to the average. Call it after every step."""
        count = self.count(steps)
        if count == self.count(steps - 1):
            return
        current = model.state_dict()
        floats = [name for name, value in current.items() if value.is_floating_point()]
        ours, theirs = [self.weights[n] for n in floats], [current[n] for n in floats]
        if self._ema:
            get_ema_multi_avg_fn(min(self._decay, steps / (9 + steps)))(ours, theirs, count - 1)
        else:
            get_swa_multi_avg_fn()(ours, theirs, count - 1)
        for name in current.keys() - set(floats):
            self.weights[name].copy_(current[name])

    def has_stale_statistics(self, steps: int) -> bool:
        """Whether batch-norm statistics must be recomputed before the average after `steps` steps is used."""
        return self._recomputes and self._recomputed_at != self.count(steps)

    def recompute_statistics(self, model: nn.Module, inputs: Iterable[Tensor], steps: int) -> None:
        """Recomputes the batch-norm statistics: the mean over the batches of `inputs`, as the network takes them.

        The model must have the averaged weights (`applied_to`); its statistics become those of the average.
        """
        update_bn(inputs, model)
        for name, buffer in model.named_buffers():
            if name in self.weights:
                self.weights[name].copy_(buffer)
        self._recomputed_at = self.count(steps)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights; it has its own again afterwards."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Restores the average from a checkpoint. How many sets of weights are in it follows from the step."""
        for name, value in weights.items():
            self.weights[name].copy_(value)


def averaged_steps(section: Averaging, length: RunLength) -> tuple[int, int]:
    """(first, every): the average takes the weights after `first` steps, and every so many steps from there on.

    Raises:
        ValueError: the average would never begin, or would never take a second set of weights.
    """
    if section.kind == "ema":
        return 1, 1
    start = SWA_START if section.start is None else fit(section.start, SWA_START, length)
    every = Duration(1, "ep") if section.every is None else section.every
    first, stride = start.steps(length), every.steps(length)
    if first > length.total_steps:
        raise ValueError(
            f"start {start} is step {first}, after the end of the run of {length.total_steps} steps; {_EARLIER}"
        )
    if not stride:
        raise ValueError(f"every {every} rounds to 0 steps; allowed: one step or more")
    return max(first, 1), stride
