"""Parameter groups: which parameters are trained by what, at which share of the learning rate, with which decay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
Terms = Callable[[nn.Parameter], Mapping[str, Any]]
"""What an optimizer has to know of a parameter, as the entries of its group. A `share` multiplies that of the rate."""


def norms_and_biases(model: nn.Module) -> set[int]:
    """The ids of the parameters that only shift or scale: those of norms, and every vector."""
    found = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(False)}
    return found | {id(p) for p in model.parameters() if p.ndim < 2}


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_norms: bool,
    rates: Mapping[nn.Parameter, float],
    terms: Terms = lambda parameter: {},
) -> list[dict[str, Any]]:
    """The parameters that require a gradient, by share of the rate from the highest to the lowest, and within each
    share those with weight decay before norms and biases, which by default have none.

    A bias only shifts, and the next layer undoes the scale of a norm, so pulling them towards zero regularises
    nothing: He et al., "Bag of tricks for image classification with convolutional neural networks", 2019. A job
    without weight decay has one group for each share.

    Args:
        rates: for parameters with a learning rate of their own, its share of the job's; 0: never trained.
        terms: splits the groups further.
    """
    spare = set() if decay_norms or not weight_decay else norms_and_biases(model)
    found: dict[tuple[float, bool, tuple[tuple[str, Any], ...]], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        own = dict(terms(parameter))
        share = rates.get(parameter, 1.0) * own.pop("share", 1.0)
        if parameter.requires_grad and share:
            found[share, id(parameter) in spare, tuple(sorted(own.items()))].append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if spared else weight_decay, "share": share, **dict(own)}
        for (share, spared, own), parameters in sorted(found.items(), key=lambda item: (-item[0][0], *item[0][1:]))
    ]


@dataclass(frozen=True)
class Group:
    """A parameter group to be shown.

    Attributes:
        by: what trains it; empty for parameters that are never trained.
        share: of the job's learning rate.
        parameters: the shape of each, by name.
    """

    by: str
    share: float
    weight_decay: float
    parameters: Mapping[str, tuple[int, ...]]

    @property
    def count(self) -> int:
        """Numbers in all of its parameters."""
        total = 0
        for shape in self.parameters.values():
            size = 1
            for side in shape:
                size *= side
            total += size
        return total


def groups_of(optimizer: optim.Optimizer, model: nn.Module) -> list[Group]:
    """The groups of an optimizer, and last the parameters of the network that it does not have."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for group in optimizer.param_groups:
        shapes = {names.pop(id(p)): tuple(p.shape) for p in group["params"]}
        by = group.get("trained_by", type(optimizer).__name__)
        found.append(Group(by, group["share"], group.get("weight_decay", 0.0), shapes))
    left = {name: tuple(model.get_parameter(name).shape) for name in names.values()}
    return [*found, Group("", 0.0, 0.0, left)] if left else found
