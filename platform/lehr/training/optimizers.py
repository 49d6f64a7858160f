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
    "sparseadam": "takes sparse gradients only, and those of images are dense",
    "muon": "takes matrices only, and the networks here have other weights too",
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
    """The job's optimizer over all parameters that take a gradient.

    Args:
        rates: of parameters whose learning rate is another than the job's, its share of the job's rate. Parameter
            groups keep it as `share`; to set their `lr` is up to who takes the steps.

    Raises:
        JobError: an option has a value that torch refuses, or no parameter takes a gradient.
    """
    section, name = job.optimizer, job.optimizer.name.lower()
    groups = parameter_groups(model, section.weight_decay, section.decay_norms, rates or {})
    if not groups:
        raise job.error("model", "no parameter takes a gradient, so there is nothing to train")
    if not has_decay(name):
        groups = [{name: value for name, value in group.items() if name != "weight_decay"} for group in groups]
    try:
        return OPTIMIZERS[name](groups, lr=section.lr, **section.options)  # type: ignore[call-arg]
    except (ValueError, TypeError) as error:
        raise job.error("optimizer", f"torch refuses it: {error}") from error


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool, rates: Mapping[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """The parameters that take a gradient: those that decay, then norms and biases, which by default do not; and that
    for each share of the rate, from the highest to the lowest.

    A bias only shifts and the scale of a norm is undone by the next layer, so holding them near zero regularises
    nothing: He et al., "Bag of tricks for image classification with convolutional neural networks", 2019. Without
    weight decay there is one group.
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
