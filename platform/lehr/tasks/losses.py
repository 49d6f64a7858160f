"""Losses by name, each a pure function to be read beside its paper, and what makes one exact over workers and batches.

A loss is a function (outputs, targets, **options) that returns the loss of each row [rows]; one that users bring may
return the mean over its rows instead. `outputs` [rows, classes] are the network's own. `targets` [rows] int64 are
classes, or [rows, classes] the shares of the classes where images are mixed. One that has the parameters
`label_smoothing` or `class_weights` gets those of the job's `loss` section. To add a loss: its function here, and its
line in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.forms import UNREADABLE

Activation: TypeAlias = Literal["softmax", "sigmoid", "none"]
"""What turns a network's outputs into probabilities. none: they are probabilities already."""
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

Function = TypeVar("Function", bound=Callable[..., object])


def activation(name: Activation) -> Callable[[Function], Function]:
    """Says what a loss expects of the outputs; without it, logits whose softmax is the probabilities."""

    def mark(function: Function) -> Function:
        function.__dict__["activation"] = name
        return function

    return mark


def logits(outputs: Tensor, kind: Activation) -> Tensor:
    """Outputs [..., classes] as values whose softmax is the probabilities of the classes.

    Of one-against-all outputs these are their sigmoids, scaled to sum to one over the classes.
    """
    if kind == "sigmoid":
        return F.logsigmoid(outputs)
    return outputs if kind == "softmax" else outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log()


# ── the losses ──────────────────────────────────────────────────────────────────────────────────────────────────────


def cross_entropy(
    outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """−Σ_c w_c t_c log p_c with p = softmax(outputs) and t the target, of which label smoothing spreads a share evenly
    over the classes (Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016)."""
    return F.cross_entropy(outputs, targets, class_weights, reduction="none", label_smoothing=label_smoothing)


def focal(
    outputs: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """−Σ_c α_c t_c (1 − p_c)^γ log p_c: images that are classified well already count less.

    Lin et al., "Focal loss for dense object detection", 2017, over the softmax of all classes; their α is
    `class_weights`. With γ = 0 it is cross entropy.
    """
    if gamma < 0:
        raise ValueError(f"gamma: {gamma} is out of range; allowed: 0 or more")
    log_p = outputs.log_softmax(dim=1)
    missed = -torch.expm1(log_p)  # 1 − p, also where p is close to 1
    # The slope of x^γ at 0 is infinite for γ < 1; log p is 0 there.
    modulated = missed.clamp(min=torch.finfo(outputs.dtype).eps) ** gamma * -log_p
    each = shares(outputs, targets, label_smoothing) * modulated
    return (each if class_weights is None else each * class_weights).sum(dim=1)


@activation("sigmoid")
def bce(
    outputs: Tensor,
    targets: Tensor,
    pos_weight: float = 1.0,
    target_threshold: float | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """−1/C Σ_c [w⁺ t_c log σ(z_c) + (1 − t_c) log(1 − σ(z_c))]: each class against all others, on one-hot targets
    (Wightman et al., "ResNet strikes back", 2021).

    Args:
        pos_weight: w⁺, the weight of the right classes against the others.
        target_threshold: of mixed images, a class whose share is above it counts as right; others do not.
    """
    if pos_weight <= 0:
        raise ValueError(f"pos_weight: {pos_weight} is out of range; allowed: above 0")
    if target_threshold is not None and not 0 <= target_threshold < 1:
        raise ValueError(f"target_threshold: {target_threshold} is out of range; allowed: from 0 to below 1")
    wanted = shares(outputs, targets, label_smoothing)
    if target_threshold is not None:
        wanted = (wanted > target_threshold).to(outputs.dtype)
    weight = None if pos_weight == 1 else outputs.new_full((), pos_weight)
    each = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none", pos_weight=weight)
    return each.mean(dim=1) * of_rows(class_weights, outputs, targets)


def poly(
    outputs: Tensor,
    targets: Tensor,
    epsilon: float = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy + ε (1 − p_t), with p_t = Σ_c t_c p_c: the first term of its Taylor series in 1 − p_t counts more.

    Poly-1 of Leng et al., "PolyLoss: a polynomial expansion perspective of classification loss functions", 2022.
    """
    if epsilon < -1:
        raise ValueError(f"epsilon: {epsilon} is out of range; allowed: -1 or more")
    p = (shares(outputs, targets, label_smoothing) * outputs.softmax(dim=1)).sum(dim=1)
    first = epsilon * (1 - p) * of_rows(class_weights, outputs, targets)
    return cross_entropy(outputs, targets, label_smoothing, class_weights) + first


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "bce": bce,
    "poly": poly,
}


def shares(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The target as shares of the classes [rows, classes], of which label smoothing spreads a part evenly."""
    classes = outputs.shape[1]
    whole = targets if targets.is_floating_point() else F.one_hot(targets.clamp(min=0), classes).to(outputs.dtype)
    return whole * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else whole


def of_rows(class_weights: Tensor | None, outputs: Tensor, targets: Tensor) -> Tensor | float:
    """The weight of each row [rows]: that of its class."""
    return 1.0 if class_weights is None else shares(outputs, targets) @ class_weights


# ── summing them ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Loss:
    """A loss with its options, summed over rows: sums add up exactly over parts of a batch and over workers.

    Attributes:
        function: (outputs, targets) → the loss of each row [rows], or with `mean` the mean over its rows.
        own: whether it is a user's; such a function is never called without rows, or with rows that have no target.
        activation: what turns the outputs that it trains into probabilities.
    """

    function: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    mean: bool = False
    own: bool = False
    activation: Activation = "softmax"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss summed over the rows whose image could be read."""
        mixed = targets.is_floating_point()  # shares of the classes; rows that could not be read have none
        known = targets.sum(dim=1) > 0 if mixed else targets != UNREADABLE
        return self.summed(outputs, targets.to(outputs.dtype) if mixed else targets, known)

    def summed(self, outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """The loss summed over the rows that are `known`, bool [rows]; the targets are as the function takes them."""
        if not self.own:
            each = self.function(outputs, targets)
            return torch.where(known, each, torch.zeros_like(each)).sum()
        outputs, targets = outputs[known], targets[known]
        if not len(outputs):
            return outputs.sum()  # 0, with a gradient of 0
        found = self.function(outputs, targets)
        return found * len(outputs) if self.mean else found.sum()
