"""LAMB: Adam whose step is as long, relative to the weights, in every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim

from lehr.training.optimizers.trust_ratio import ratio


class LAMB(optim.Optimizer):
    """You et al., "Large batch optimization for deep learning: Training BERT in 76 minutes", 2020, algorithm 2.

    With m and v the bias-corrected averages of the gradient and of its square, as in Adam, and λ the weight decay:
    r = m / (√v + ε), then w ← w − lr × ‖w‖ / ‖r + λ w‖ × (r + λ w). The norms are over a whole parameter, φ is the
    identity, and a ratio of a zero norm counts as 1. The gradient is not clipped; `train.max_gradient_norm` does that.

    Groups with `adapted: False` (norms and biases) take Adam's step with decoupled weight decay: the ratio is 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.005,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas) or len(betas) != 2:
            raise ValueError(f"betas {betas} are not two numbers from 0 to below 1")
        if eps < 0:
            raise ValueError(f"eps {eps} is negative")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "adapted": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes one step."""
        for group in self.param_groups:
            weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients, states = [p.grad for p in weights if p.grad is not None], [self.state[p] for p in weights]
            for weight, state in zip(weights, states, strict=True):
                if not state:
                    state.update(step=0, m=torch.zeros_like(weight), v=torch.zeros_like(weight))
                state["step"] += 1
            beta1, beta2 = group["betas"]
            m, v = [state["m"] for state in states], [state["v"] for state in states]
            torch._foreach_lerp_(m, gradients, 1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
            update = torch._foreach_div(m, [1 - beta1 ** state["step"] for state in states])
            root = torch._foreach_sqrt(torch._foreach_div(v, [1 - beta2 ** state["step"] for state in states]))
            torch._foreach_add_(root, group["eps"])
            torch._foreach_div_(update, root)
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])
            if group["adapted"]:
                torch._foreach_mul_(update, ratio(torch._foreach_norm(weights), torch._foreach_norm(update)))
            torch._foreach_add_(weights, update, alpha=-group["lr"])
