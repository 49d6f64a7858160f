"""Averages of the weights along the run, evaluated and saved beside the raw ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of the weights: a ← decay × a + (1 − decay) × w after every step.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, with exponential weights.
    In the first steps the decay is min(decay, (1 + t) / (10 + t)), so that the random start is soon forgotten.
    Buffers that are floats (running statistics) are averaged alike; others are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after the update of `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = model.state_dict()
        floats = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in floats], [current[n] for n in floats], 1 - decay)
        for name in current.keys() - set(floats):
            self.weights[name].copy_(current[name])

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
        for name, value in weights.items():
            self.weights[name].copy_(value)
