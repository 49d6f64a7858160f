"""From a job's `optimizer` section and its network to the optimizer that trains it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn, optim

from lehr import models
from lehr.errors import JobError
from lehr.job import OptimizerSection, Training, TrainJob, check_call
from lehr.own_code import calling
from lehr.training.optimizers.find import OPTIMIZERS, Make, find
from lehr.training.optimizers.groups import Terms, norms_and_biases, parameter_groups
from lehr.training.optimizers.lamb import LAMB
from lehr.training.optimizers.lars import LARS
from lehr.training.optimizers.muon import Muon, hidden_matrices
from lehr.usual import usual_of


def check_optimizer(job: TrainJob) -> None:
    """Raises JobError for an unknown optimizer, an option that it does not have, or one that ignores its groups."""
    section = job.optimizer
    try:
        make = find(section)
    except ValueError as error:
        raise job.error("optimizer.name", str(error)) from None
    ours = {next(iter(inspect.signature(make).parameters), "params"), "params", "lr", "weight_decay"}
    check_call(make, section.options, skip=ours, fields=type(section).model_fields, field="optimizer", error=job.error)
    if section.weight_decay and not _decays(make):
        raise job.error("optimizer.weight_decay", f"{section.name} has no weight decay; allowed: 0")
    complete_rate(job, job.error)
    if is_own(section) and (problem := _ignored(make, job.optimizer)):
        raise job.error(problem[0], problem[1])


def build_optimizer(
    job: TrainJob, model: nn.Module, rates: Mapping[nn.Parameter, float] | None = None, outputs: int = 0
) -> optim.Optimizer:
    """The job's optimizer over all parameters that require a gradient.

    Args:
        rates: for parameters with a learning rate of their own, its share of the job's rate. Parameter groups keep it
            as `share`; whoever takes the steps sets their `lr`.
        outputs: of the network, by which its head is known.

    Raises:
        JobError: an option has a value that the optimizer refuses, or no parameter requires a gradient.
        OwnCodeError: a class of the user's own failed.
    """
    section = job.optimizer
    try:
        make = find(section)
    except ValueError as error:
        raise job.error("optimizer.name", str(error)) from None
    terms = _terms(make, section, model, outputs)
    groups = parameter_groups(model, section.weight_decay, section.decay_norms, rates or {}, terms)
    if not groups:
        raise job.error("model", "no parameter requires a gradient, so there is nothing to train")
    try:
        return _make(make, section, groups)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        who = "timm" if section.name.lower().startswith("timm/") else "torch" if make in _TORCH else section.name
        raise job.error("optimizer", f"{who} refuses it: {error}") from error


_TORCH = {found for found in OPTIMIZERS.values() if found.__module__.startswith("torch.")}


def is_own(section: OptimizerSection) -> bool:
    """Whether the optimizer is a class of the user's own."""
    return ":" in section.name


def calls_of(section: OptimizerSection) -> AbstractContextManager[None]:
    """Around a call of the optimizer: errors in a class of the user's own are told as such."""
    return calling(section.name) if is_own(section) else nullcontext()


def has_decay(section: OptimizerSection) -> bool:
    """Whether the optimizer has a weight decay. Raises ValueError where there is none of its name."""
    return _decays(find(section))


def usual_rate(section: OptimizerSection) -> float:
    """The usual learning rate of the optimizer; the job's own for one that has none."""
    usual = usual_of(section.name)
    return usual.rate if usual else section.rate


def complete_rate(job: Training, error: Callable[[str, str], JobError]) -> None:
    """Fills in the learning rate of a job that says none, with an optimizer that has no usual one: the default of its
    constructor. `rate_note` says so.

    Args:
        error: makes a JobError of a field and a sentence.

    Raises:
        JobError: the constructor has no default either; or the optimizer cannot be found.
    """
    section = job.optimizer
    if section.lr is not None:
        return
    try:
        parameters = inspect.signature(find(section)).parameters
    except ValueError as problem:
        raise error("optimizer.name", str(problem)) from None
    rate = parameters["lr"].default if "lr" in parameters else None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        what = f"is missing: {section.name} has no usual learning rate, and its constructor no default"
        raise error("optimizer.lr", f"{what}; write optimizer.lr=0.001")
    job.__dict__["optimizer"] = section.at_rate(float(rate))


def rate_note(section: OptimizerSection) -> list[str]:
    """A sentence for a learning rate that came from the constructor of the optimizer."""
    if "lr" in section.model_fields_set or usual_of(section.name):
        return []
    return [f"optimizer.lr is {section.rate:g}, the default of {section.name} itself, since the job gives none"]


def _decays(make: Make) -> bool:
    return "weight_decay" in inspect.signature(make).parameters


def _make(make: Make, section: OptimizerSection, groups: Iterable[Mapping[str, Any]]) -> optim.Optimizer:
    decays = _decays(make)
    own = [{key: value for key, value in group.items() if decays or key != "weight_decay"} for group in groups]
    decay = {"weight_decay": section.weight_decay} if decays else {}
    with calls_of(section):
        return make(own, lr=section.rate, **decay, **section.options)


def _terms(make: Make, section: OptimizerSection, model: nn.Module, outputs: int) -> Terms:
    """What the optimizer has to know of each parameter."""
    if make is Muon:
        rate = section.options.get("adamw_lr", inspect.signature(Muon).parameters["adamw_lr"].default)
        matrices, other = hidden_matrices(model, _head(model, outputs)), {"trained_by": "AdamW"}
        share = rate / section.rate
        return lambda p: {"trained_by": "Muon"} if id(p) in matrices else {**other, "share": share}
    if make in (LAMB, LARS):
        spared = norms_and_biases(model)
        return lambda p: {"adapted": id(p) not in spared}
    if make is optim.ASGD and not section.decay_norms:  # its λ is a weight decay by another name
        spared, decay = norms_and_biases(model), section.options.get("lambd", 1e-4)
        return lambda p: {"lambd": 0.0 if id(p) in spared else decay}
    return lambda p: {}


def _head(model: nn.Module, outputs: int) -> nn.Module | None:
    try:
        return model.get_submodule(models.head_of(model, outputs))
    except ValueError:
        return None


def _ignored(make: Make, section: OptimizerSection) -> tuple[str, str] | None:
    """The field that an optimizer of the user's own accepts and ignores, and the sentence; None where there is none.

    Two equal matrices are trained by one step, in groups that differ in their rate, or in their weight decay. Whatever
    moves them alike does not read its groups: the schedule would change nothing, or norms and biases would decay.
    """
    probes = [("optimizer.name", "lr", (section.rate, 0.0), 1.0, "so the schedule would change nothing")]
    if section.weight_decay and not section.decay_norms:
        why = "so norms and biases would decay too; allowed: that, or optimizer.decay_norms=true"
        probes.append(("optimizer.weight_decay", "weight_decay", (section.weight_decay, 0.0), 0.0, why))
    for field, key, values, gradient, why in probes:
        weights = [nn.Parameter(torch.ones(4, 4)) for _ in values]
        groups = [{"params": [weight], key: value} for weight, value in zip(weights, values, strict=True)]
        optimizer = _make(make, section, groups)
        for group in optimizer.param_groups:
            if "lr" not in group:
                return "optimizer.name", f"{section.name} has no lr in its param_groups, so it would have no schedule"
        for weight in weights:
            weight.grad = torch.full_like(weight, gradient)
        with calls_of(section):
            optimizer.step()
        if weights[0].equal(weights[1]) and not weights[0].equal(torch.ones(4, 4)):
            return field, f"{section.name} does not read {key} of its param_groups, {why}"
    return None
