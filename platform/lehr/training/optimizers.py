"""Optimizers by name, from `torch.optim`."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase

from lehr.job import TrainJob, check_call, not_a_choice

REFUSED = {
    "lbfgs": "evaluates the loss several times per step, which a loop over batches does not",
    "sparseadam": "takes sparse gradients only, and image networks have dense ones",
    "muon": "takes matrices only, and image networks also have weights of other shapes",
}
OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    name.lower(): found
    for name, found in sorted(vars(optim).items())
    if inspect.isclass(found)
    and issubclass(found, optim.Optimizer)
    and found is not optim.Optimizer
    and name.lower() not in REFUSED
}
"""By lower-case name; a job may spell them as torch does."""

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_OURS = ("params", "lr", "weight_decay")


def check_optimizer(job: TrainJob) -> None:
    """Raises JobError for an unknown optimizer or an option it does not have."""
    section, name = job.optimizer, job.optimizer.name.lower()
    if name in REFUSED:
        raise job.error("optimizer.name", f"{section.name} {REFUSED[name]}; allowed: {', '.join(OPTIMIZERS)}")
    if name not in OPTIMIZERS:
        raise job.error("optimizer.name", not_a_choice(section.name, "optimizer", OPTIMIZERS))
    check_call(
        OPTIMIZERS[name],
        section.options,
        skip=_OURS,
        fields=type(section).model_fields,
        field="optimizer",
        error=job.error,
    )
    if section.weight_decay and not has_decay(name):
        raise job.error("optimizer.weight_decay", f"{section.name} has no weight decay; allowed: 0")


def build_optimizer(
    job: TrainJob, model: nn.Module, rates: Mapping[nn.Parameter, float] | None = None
) -> optim.Optimizer:
    """The job's optimizer over all parameters that require a gradient.

    Args:
        rates: for parameters with a learning rate of their own, its share of the job's rate. Parameter groups keep it
            as `share`; whoever takes the steps sets their `lr`.

    Raises:
        JobError: an option has a value that torch refuses, or no parameter requires a gradient.
    """
    section, name = job.optimizer, job.optimizer.name.lower()
    groups = parameter_groups(model, section.weight_decay, section.decay_norms, rates or {})
    if not groups:
        raise job.error("model", "no parameter requires a gradient, so there is nothing to train")
    if not has_decay(name):
        groups = [{name: value for name, value in group.items() if name != "weight_decay"} for group in groups]
    try:
        return OPTIMIZERS[name](groups, lr=section.lr, **section.options)  # type: ignore[call-arg]
    except (ValueError, TypeError) as error:
        raise job.error("optimizer", f"torch refuses it: {error}") from error


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool, rates: Mapping[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """The parameters that require a gradient, by share of the rate from the highest to the lowest, and within each
    share those with weight decay before norms and biases, which by default have none.

    A bias only shifts, and the next layer undoes the scale of a norm, so pulling them towards zero regularises
    nothing: He et al., "Bag of tricks for image classification with convolutional neural networks", 2019. A job
    without weight decay has one group for each share.
    """
    of_norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(False)}
    found: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)  # by (share, spared)
    for parameter in model.parameters():
        share = rates.get(parameter, 1.0)
        if parameter.requires_grad and share:
            spare = not decay_norms and (parameter.ndim < 2 or id(parameter) in of_norms)
            found[share, spare and weight_decay > 0].append(parameter)
    return [
        {"params": found[share, spare], "weight_decay": 0.0 if spare else weight_decay, "share": share}
        for share, spare in sorted(found, key=lambda group: (-group[0], group[1]))
    ]


def has_decay(name: str) -> bool:
    """Whether an optimizer has a weight decay."""
    return "weight_decay" in inspect.signature(OPTIMIZERS[name.lower()]).parameters
