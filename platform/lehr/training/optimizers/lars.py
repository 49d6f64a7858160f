"""LARS: momentum SGD whose step is as long, relative to the weights, in every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim

from lehr.training.optimizers.trust_ratio import ratio


class LARS(optim.Optimizer):
    """You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017, algorithm 1.

    With η the trust coefficient, μ the momentum and β the weight decay:
    λ = η × ‖w‖ / (‖g‖ + β ‖w‖), v ← μ v + lr × λ × (g + β w), w ← w − v. The norms are over a whole parameter, and the
    ratio of a zero norm counts as 1. As in the paper the learning rate is inside of the momentum.

    Groups with `adapted: False` (norms and biases) take the step of SGD: λ is 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum {momentum} is not a number from 0 to below 1")
        if trust_coefficient <= 0:
            raise ValueError(f"trust_coefficient {trust_coefficient} is not above 0")
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "trust_coefficient": trust_coefficient, "adapted": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes one step."""
        for group in self.param_groups:
            weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients, decay = [p.grad for p in weights if p.grad is not None], group["weight_decay"]
            update = torch._foreach_add(gradients, weights, alpha=decay)
            if group["adapted"]:
                of_weights, of_gradients = torch._foreach_norm(weights), torch._foreach_norm(gradients)
                below = torch._foreach_add(of_gradients, of_weights, alpha=decay)
                torch._foreach_mul_(update, ratio(of_weights, below, group["trust_coefficient"]))
            for weight in weights:
                if "v" not in self.state[weight]:
                    self.state[weight]["v"] = torch.zeros_like(weight)
            v = [self.state[weight]["v"] for weight in weights]
            torch._foreach_mul_(v, group["momentum"])
            torch._foreach_add_(v, update, alpha=group["lr"])
            torch._foreach_sub_(weights, v)
