"""Optimizers by name, from `torch.optim`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn, optim

from lehr.job import TrainJob, check_call

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"sgd": optim.SGD}


def check_optimizer(job: TrainJob) -> None:
    """Raises JobError for an unknown optimizer or an option it does not have."""
    section = job.optimizer
    if section.name not in OPTIMIZERS:
        raise job.error("optimizer.name", f'"{section.name}" is not an optimizer; allowed: {", ".join(OPTIMIZERS)}')
    check_call(
        OPTIMIZERS[section.name],
        section.options,
        skip=("params", "lr", "weight_decay"),
        field="optimizer",
        error=job.error,
    )


def build_optimizer(job: TrainJob, model: nn.Module) -> optim.Optimizer:
    """The job's optimizer over all parameters that take a gradient.

    Raises:
        JobError: an option has a value that torch refuses, or no parameter takes a gradient.
    """
    section = job.optimizer
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise job.error("model", "no parameter takes a gradient, so there is nothing to train")
    try:
        return OPTIMIZERS[section.name](parameters, lr=section.lr, weight_decay=section.weight_decay, **section.options)
    except (ValueError, TypeError) as error:
        raise job.error("optimizer", f"torch refuses it: {error}") from error
