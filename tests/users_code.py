"""Losses and metrics as users write them: named by import path in jobs of several tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    log_p = F.log_softmax(outputs, dim=1)[torch.arange(len(targets)), targets]
    loss = -((1 - log_p.exp()) ** gamma) * log_p
    return loss if class_weights is None else loss * class_weights[targets]


def mean_focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    return focal(outputs, targets, gamma).mean()


def soft_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """Takes mixed targets too, and falls below zero."""
    shares = targets if targets.is_floating_point() else F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return (outputs.square().mean(dim=1) - (shares * outputs).sum(dim=1)) / 4


class Focal(nn.Module):
    """As a class, with a buffer that must follow the outputs to their device and type."""

    gamma: Tensor

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.tensor(gamma))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        assert self.gamma.dtype == outputs.dtype
        log_p = F.log_softmax(outputs, dim=1)[torch.arange(len(targets)), targets]
        return -((1 - log_p.exp()) ** self.gamma) * log_p


class Sigmoid(nn.Module):
    activation = "sigmoid"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        shares = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, shares, reduction="none").sum(dim=1)


def f1_of_each(outputs: Tensor, targets: Tensor) -> Tensor:
    found = outputs.argmax(dim=1)
    each = []
    for c in range(outputs.shape[1]):
        true = int(((found == c) & (targets == c)).sum())
        wrong = int(((found == c) != (targets == c)).sum())
        each.append(2 * true / (2 * true + wrong) if true + wrong else float("nan"))
    return torch.tensor(each, dtype=torch.float64)


class ErrorRate:
    """As the classes of torchmetrics, with its own word for what is better."""

    higher_is_better = False

    def __init__(self, percent: bool = False) -> None:
        self.wrong = self.rows = 0
        self.percent = percent

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.wrong += int((outputs.argmax(dim=1) != targets).sum())
        self.rows += len(targets)

    def compute(self) -> float:
        return (100 if self.percent else 1) * self.wrong / self.rows


def order_of_rows(outputs: Tensor, targets: Tensor) -> Tensor:
    """A number that changes with the order of the rows."""
    return ((torch.arange(len(targets)) + 1) * targets).double().mean()


def spread(outputs: Tensor, targets: Tensor, low: float = 0.1) -> dict[str, Any]:
    return {"low": outputs.double().quantile(low), "high": float(outputs.max())}


# ── that cannot be used ─────────────────────────────────────────────────────────────────────────────────────────────


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return focal(outputs, targets).sum()


def of_each_class(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.log_softmax(dim=1)


def number(outputs: Tensor, targets: Tensor) -> float:
    return float(focal(outputs, targets).mean())


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return focal(outputs.detach(), targets)


def mistakes(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) != targets).long()


def random(outputs: Tensor, targets: Tensor) -> Tensor:
    return focal(outputs, targets) * torch.rand(len(targets))


def raises(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.missing  # type: ignore[attr-defined]


class Remembers(nn.Module):
    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = focal(outputs, targets) + 0 * self.centre
        self.centre += outputs.mean().detach()
        return loss


class Learns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.scale * focal(outputs, targets)


def flipping(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Other names at every other call."""
    flipping.calls = getattr(flipping, "calls", 0) + 1  # type: ignore[attr-defined]
    return {"a" if flipping.calls % 2 else "b": 0.0}  # type: ignore[attr-defined]


nothing = 3
