"""A job's loss: found by name, checked, and tried on a few rows before the first step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lehr.job import TrainJob, check_call, not_a_choice
from lehr.own_code import calling, shape
from lehr.tasks.base import Task
from lehr.tasks.forms import USUAL
from lehr.tasks.losses import ACTIVATIONS, Activation, Loss
from lehr.trust import Call, load

OF_THE_SECTION = ("label_smoothing", "class_weights")
"""Fields of the section that a loss gets if it has parameters of these names."""


def find_loss(job: TrainJob, task: type[Task[Any]]) -> Callable[..., Any] | None:
    """The function or class that the job names; None for a task that has a loss of its own.

    Raises JobError where there is none, or for a wrong option.
    """
    section = job.loss
    if not task.losses:
        return None
    own = ":" in section.name
    if own:
        try:
            found = load(Call("loss", section.name, section.options))
        except ValueError as error:
            raise job.error("loss.name", str(error)) from error
        if not callable(found):
            raise job.error("loss.name", f"{section.name} is {shape(found)}; allowed: a function or a class")
    else:
        if section.name not in task.losses:
            what = "loss" if job.task.name == USUAL else f"loss of {job.task.name}"
            raise job.error("loss.name", not_a_choice(section.name, what, [*task.losses, "my_package.module:name"]))
        found = task.losses[section.name]
    taken, inputs = parameters(found), () if inspect.isclass(found) else first_two(found)
    fields = [each for each in OF_THE_SECTION if each in taken]
    check_call(found, section.options, skip=(*inputs, *OF_THE_SECTION), fields=fields, field="loss", error=job.error)
    for name, value, none in (
        ("label_smoothing", section.label_smoothing, 0.0),
        ("class_weights", section.class_weights, "none"),
    ):
        if value != none and name not in taken:
            has = f"has no parameter {name}" if own else f"takes no {name.replace('_', ' ')}"
            raise job.error(f"loss.{name}", f"{section.name} {has}; allowed: {none}")
    if (said := activation_of(found, task.usual_activation)) not in ACTIVATIONS:
        what = f"{section.name}.activation is {said!r}; allowed: {', '.join(ACTIVATIONS)}"
        raise job.error("loss.name", what)
    return found


def activation_of(found: object, usual: Activation) -> Activation:
    """What turns the outputs that a loss trains into probabilities; as usual for the task where it does not say."""
    said: Activation = getattr(found, "activation", usual)
    return said if isinstance(said, str) else usual


def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or class; none where it has no signature."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def first_two(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the two parameters that get outputs and targets."""
    return tuple(parameters(function))[:2]


@dataclass
class Built:
    """A loss with its options; a class is made once for each device and type that it is used on.

    Attributes:
        options: the job's, and those of `OF_THE_SECTION` that it takes; tensors follow the outputs to their device.
        path: its import path; empty for one of lehr's own.
    """

    found: Callable[..., Any]
    options: Mapping[str, Any]
    path: str = ""
    _made: dict[tuple[torch.device, torch.dtype], Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        place = outputs.device, outputs.dtype
        if place not in self._made:
            self._made[place] = self.make(*place)
        if not self.path:
            return self._made[place](outputs, targets)
        with calling(self.path, outputs=outputs, targets=targets):
            return self._made[place](outputs, targets)

    def make(self, device: torch.device, dtype: torch.dtype) -> Callable[..., Any]:
        """The function of outputs and targets on a device, for outputs of a type."""
        options = {
            name: value.to(device, dtype) if isinstance(value, Tensor) else value
            for name, value in self.options.items()
        }
        if not inspect.isclass(self.found):
            return lambda outputs, targets: self.found(outputs, targets, **options)
        with calling(self.path, **options):
            made: Any = self.found(**options)
        return made.to(device, dtype) if isinstance(made, nn.Module) else made


def make_losses(
    job: TrainJob, task: type[Task[Any]], class_weights: Tensor | None, outputs: int, dtype: torch.dtype, mixed: bool
) -> tuple[Loss, Loss]:
    """The job's loss as it is trained, and as it is measured: without label smoothing and class weights.

    Args:
        class_weights: float64 [classes], or None.
        outputs: of the network.
        dtype: of the weights; the loss is tried in it.
        mixed: whether the targets are shares of the classes, since images are mixed.

    Raises:
        JobError: the loss refuses an option, or does not return what a loss must.
        OwnCodeError: the user's own loss failed.
    """
    found = find_loss(job, task)
    assert found is not None, "of a task that has losses"
    activation = activation_of(found, task.usual_activation)
    taken, path = parameters(found), job.loss.name if ":" in job.loss.name else ""
    made: list[Loss] = []
    for smoothing, weights in ((job.loss.label_smoothing, class_weights), (0.0, None)):
        given = {"label_smoothing": smoothing, "class_weights": weights}
        own = {name: value for name, value in given.items() if name in taken}
        built = Built(found, {**job.loss.options, **own}, path)
        mean = _try(job, built, task, outputs, dtype, mixed and not made)
        made.append(Loss(built, mean, bool(path), activation))
    return made[0], made[1]


def _try(job: TrainJob, built: Built, task: type[Task[Any]], count: int, dtype: torch.dtype, mixed: bool) -> bool:
    """Calls a loss with a few rows. Returns whether it gives their mean. Raises JobError where it is no loss."""
    outputs, labels = task.example(count, 7 if count != 7 else 6, dtype)
    if task.labels == "class" and activation_of(built.found, task.usual_activation) == "none":
        outputs = outputs.softmax(dim=1)
    elif task.labels != "class":
        labels = (
            labels.long() if task.labels == "mask" else labels.to(dtype)
        )  # as such a task gives its targets to a loss
    try:
        mean = _check(built, outputs, labels)
        if mixed:
            shares = nn.functional.one_hot(labels, count).to(dtype)
            _check_mixed(built, outputs, 0.75 * shares + 0.25 * shares.roll(1, dims=0))
    except ValueError as error:
        name, _, what = str(error).partition(": ")
        known = name in built.options
        raise job.error(f"loss.{name}" if known else "loss", what if known else str(error)) from error
    return mean


def _check(built: Built, outputs: Tensor, targets: Tensor) -> bool:
    """Whether the loss gives a mean. Raises ValueError, with a sentence, where it gives something else."""
    made = built.make(outputs.device, outputs.dtype)
    if isinstance(made, nn.Module) and any(True for _ in made.parameters()):
        raise ValueError(f"{built.path} has parameters of its own, which no optimizer would train; allowed: none")
    before = _state(made)
    built._made[outputs.device, outputs.dtype] = made
    with torch.random.fork_rng(devices=[]):
        found, again = (_called(built, outputs, targets) for _ in range(2))
    allowed = f"a tensor [{len(outputs)}] with the loss of each row, or the mean over the rows, with a gradient"
    told = f"{built.path or 'the loss'} returned {shape(found)} for outputs {list(outputs.shape)}"
    if not isinstance(found, Tensor) or found.shape not in ((len(outputs),), ()):
        raise ValueError(f"{told}; allowed: {allowed}")
    if not found.is_floating_point() or not found.requires_grad:
        raise ValueError(f"{told}, which has no gradient with respect to the outputs; allowed: {allowed}")
    if not built.path:
        return False
    if not torch.allclose(found, again, rtol=1e-6, equal_nan=True) or _state(made) != before:
        what = f"{built.path} draws random numbers, or keeps something from one call to the next"
        raise ValueError(f"{what}: a resumed run would not continue as it was; allowed: a pure function")
    if found.ndim == 0:
        _check_mean(built, outputs, targets, float(found.detach()), told)
    return found.ndim == 0


def _check_mean(built: Built, outputs: Tensor, targets: Tensor, value: float, told: str) -> None:
    """Raises ValueError for a sum over the rows: with all rows twice a mean stays, and a sum doubles."""
    twice = float(_called(built, torch.cat([outputs] * 2), torch.cat([targets] * 2)).detach())
    if math.isclose(twice, 2 * value, rel_tol=1e-3) and not math.isclose(twice, value, rel_tol=1e-3):
        what = "which doubles when all rows are there twice: it is their sum"
        raise ValueError(f"{told}, {what}; allowed: the mean over the rows, or a tensor [rows]")


def _check_mixed(built: Built, outputs: Tensor, shares: Tensor) -> None:
    """Raises ValueError where the loss cannot take shares of the classes."""
    why = ""
    try:
        found = _called(built, outputs, shares)
        if not isinstance(found, Tensor) or found.shape not in ((len(outputs),), ()):
            why = f"it returned {shape(found)}"
    except Exception as error:
        why = str(error)
    if why:
        what = f"mixup and cutmix give it targets {list(shares.shape)}, the shares of the classes"
        raise ValueError(f"{built.path} cannot be trained on mixed images: {what}; {why}")


def _called(built: Built, outputs: Tensor, targets: Tensor) -> Tensor:
    return built(outputs.clone().requires_grad_(True), targets.clone())


def _state(made: object) -> list[object]:
    """What a made loss could change: its buffers, and its attributes that are numbers or text."""
    buffers = [each.tolist() for each in made.buffers()] if isinstance(made, nn.Module) else []
    plain = {name: each for name, each in getattr(made, "__dict__", {}).items() if isinstance(each, int | float | str)}
    return [buffers, plain]
