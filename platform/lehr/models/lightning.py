"""A `LightningModule` as the model: its own `training_step`, `validation_step` and `configure_optimizers`.

lehr's loop calls these three (and `test_step`) as Lightning's Trainer would, on every worker and exactly resumable.
Whatever else such a class may define for the Trainer is refused by name, since nothing here would call it. The module's
`forward` returns the logits, as every network's does: accuracy, prediction and export need them.

Lightning itself is only imported by the user's module. Facts about its classes are those of lightning 2.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lehr.durations import RunLength
from lehr.errors import TrainingError
from lehr.own_code import calling

CALLED = ("training_step", "validation_step", "test_step", "configure_optimizers", "forward")
"""What is called of a LightningModule."""
_ELSEWHERE = {
    "dataloader": "the job's section data says what is read",
    "prepare_data": "the job's section data says what is read",
    "configure_callbacks": "the job's section callbacks does that",
    "configure_gradient_clipping": "train.max_gradient_norm does that",
    "clip_gradients": "train.max_gradient_norm does that",
    "checkpoint": "checkpoints hold weights and buffers; use register_buffer",
    "batch_transfer": "the job's section data.augment does that",
    "epoch_end": "validation_step logs means over rows, and the job's metrics see whole splits",
}
"""What to use instead, by a part of the name."""
_PACKAGES = ("lightning.pytorch.", "pytorch_lightning.")
_PROBE_ROWS = 4


class Misfit(ValueError):
    """Why a LightningModule does not fit, as a sentence."""


def base_of(found: object) -> type | None:
    """Lightning's own class that a class or a module derives from; None where it is no LightningModule."""
    kind = found if inspect.isclass(found) else type(found)
    return next((each for each in kind.__mro__ if each.__name__ == "LightningModule" and _is_theirs(each)), None)


def _is_theirs(kind: type) -> bool:
    return f"{kind.__module__}.".startswith(_PACKAGES)


def defines(found: object, name: str) -> bool:
    """Whether a class derived from LightningModule, or such a module, has a method of its own by this name."""
    kind = found if inspect.isclass(found) else type(found)
    base = base_of(kind)
    return inspect.getattr_static(kind, name, None) is not inspect.getattr_static(base, name, None)


def check_class(kind: type) -> None:
    """Raises Misfit for a LightningModule that wants more than lehr calls."""
    base = base_of(kind)
    assert base is not None
    known = {name for each in base.__mro__ if _is_theirs(each) for name in vars(each)} - set(dir(nn.Module))
    own = [name for name in sorted(known) if not name.startswith("_") and defines(kind, name)]
    for name in own:
        if name not in (*CALLED, "predict_step"):
            instead = next((what for part, what in _ELSEWHERE.items() if part in name), "")
            raise Misfit(
                f"{kind.__name__} defines {name}, which lehr does not call"
                + (f" ({instead})" if instead else "")
                + f"; called are {', '.join(CALLED)}"
            )
    for name in ("training_step", "forward"):
        if not defines(kind, name):
            raise Misfit(f"{kind.__name__} defines no {name}; a LightningModule is trained by its own")


# ── what stands in for Lightning's Trainer ──────────────────────────────────────────────────────────────────────────


class Trainer:
    """What a LightningModule may ask of its `trainer`. Anything else is an error that says what there is.

    Attributes:
        step: steps taken before the newest batch of training.
        stage: "train", or the split that is evaluated; empty in between.
        logged: the values of the newest step by name; None where nothing may be logged.
    """

    def __init__(self, length: RunLength, rank: int, workers: int) -> None:
        self._length, self._rank, self._workers = length, rank, workers
        self.step, self.stage = 0, ""
        self.logged: dict[str, Tensor] | None = None
        self.notes: dict[str, str] = {}

    @property
    def current_epoch(self) -> int:
        return self.step // self._length.steps_per_epoch

    @property
    def global_step(self) -> int:
        return self.step if self.training else self.step + 1

    @property
    def training(self) -> bool:
        return self.stage == "train"

    @property
    def validating(self) -> bool:
        return self.stage == "validation"

    @property
    def testing(self) -> bool:
        return self.stage == "test"

    @property
    def max_epochs(self) -> int:
        return self._length.total_steps // self._length.steps_per_epoch

    @property
    def max_steps(self) -> int:
        return self._length.total_steps

    estimated_stepping_batches = max_steps

    @property
    def num_training_batches(self) -> int:
        return self._length.steps_per_epoch

    @property
    def world_size(self) -> int:
        return self._workers

    @property
    def global_rank(self) -> int:
        return self._rank

    local_rank = global_rank

    @property
    def is_global_zero(self) -> bool:
        return self._rank == 0

    sanity_checking = predicting = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for such
            raise AttributeError(name)
        has = [each for each in vars(type(self)) if not each.startswith("_")]
        raise TrainingError(f"the model asks for trainer.{name}, which lehr does not have; it has {', '.join(has)}")

    def log(self, name: str, value: object, **how: Any) -> None:
        """In place of `LightningModule.log`. Raises TrainingError for what cannot be a mean over rows."""
        if self.logged is None:
            raise TrainingError(f"the model logs {name} outside of training_step, validation_step and test_step")
        step = f"{self.stage.replace('train', 'training')}_step"
        if self.training:
            self.notes[name] = f"{step} logs {name}; lehr records the loss of every step itself, and nothing else of it"
            return
        if how.get("on_step"):
            self.notes[name] = f"{step} logs {name} on_step; its mean over the rows of each split is recorded"
        reduce = how.get("reduce_fx", "mean")
        if reduce not in ("mean", torch.mean):
            shown = getattr(reduce, "__name__", reduce)
            raise TrainingError(f"{step} logs {name} with reduce_fx={shown}; allowed: mean, over rows")
        if how.get("on_epoch") is False:
            raise TrainingError(f"{step} logs {name} with on_epoch=False; lehr records splits; allowed: on_epoch=True")
        if not isinstance(value, Tensor | int | float) or (isinstance(value, Tensor) and value.numel() != 1):
            what = "a metric object" if hasattr(value, "compute") else f"a {type(value).__name__}"
            hint = "list it under metrics in the job" if hasattr(value, "compute") else "allowed: one number"
            raise TrainingError(f"{step} logs {name} as {what}; {hint}")
        self.logged[name] = torch.as_tensor(value).detach().double().reshape(())

    def log_dict(self, dictionary: Mapping[str, object], **how: Any) -> None:
        for name, value in dictionary.items():
            self.log(name, value, **how)


def attach(module: nn.Module, trainer: Trainer) -> None:
    """Gives a LightningModule, and those inside it, this trainer."""
    for each in module.modules():
        if base_of(each):
            each._trainer = trainer  # type: ignore[assignment]
            each.log, each.log_dict = trainer.log, trainer.log_dict  # type: ignore[assignment]


# ── its steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


class TrainingStep(nn.Module):
    """A LightningModule whose forward pass is its training step: (inputs, targets, index) -> the loss.

    DistributedDataParallel only averages gradients of what its module's forward returned.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, targets: Tensor, index: int) -> Tensor:
        """The scalar loss: a mean over the rows. Raises TrainingError for anything else."""
        with _stage(self.module, "train"):
            found = _call(self.module, "training_step", inputs, targets, index)
        loss = found.get("loss") if isinstance(found, Mapping) else found
        name = f"{type(self.module).__name__}.training_step"
        if loss is None:
            what = "nothing" if found is None else "a mapping without loss"
            raise TrainingError(f"{name} returns {what}; allowed: the loss, or a mapping with loss; no step is skipped")
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            shown = list(loss.shape) if isinstance(loss, Tensor) and loss.numel() != 1 else "what has no gradient"
            raise TrainingError(f"{name} returns {shown} as its loss; allowed: a tensor of one number with a gradient")
        return loss.reshape(())


def measure(module: nn.Module, split: str, inputs: Tensor, targets: Tensor, index: int) -> dict[str, Tensor]:
    """What the module logs for these rows, float64 scalars by name: its test step for the split test, if it has one."""
    step = step_of(module, split)
    if not step or not len(inputs):
        return {}
    with _stage(module, step.removesuffix("_step")) as trainer:
        _call(module, step, inputs, targets, index)
        return dict(trainer.logged or {})


def step_of(module: nn.Module, split: str) -> str:
    """The method that measures a split; empty where there is none."""
    wanted = ["test_step", "validation_step"] if split == "test" else ["validation_step"]
    return next((name for name in wanted if defines(module, name)), "")


@contextmanager
def _stage(module: nn.Module, stage: str) -> Iterator[Trainer]:
    trainer: Trainer = module._trainer  # type: ignore[assignment]
    trainer.stage, trainer.logged = stage, {}
    try:
        yield trainer
    finally:
        trainer.stage, trainer.logged = "", None


def _call(module: nn.Module, step: str, inputs: Tensor, targets: Tensor, index: int) -> Any:
    method: Callable[..., Any] = getattr(module, step)
    names = list(inspect.signature(method).parameters)
    if "dataloader_iter" in names or (len(names) > 2 and names[2] != "dataloader_idx"):
        raise TrainingError(f"{step} takes {', '.join(names)}; allowed: batch, batch_idx")
    with calling(f"{type(module).__name__}.{step}", inputs=inputs, targets=targets):
        return method((inputs, targets), *([index] if len(names) > 1 else []))


# ── its optimizer ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rates:
    """What the module's scheduler makes of its optimizer's groups, for every step beforehand.

    A scheduler is a function of how often it was stepped. As a table it has no state to restore, and all workers agree.

    Attributes:
        every: steps for which each entry holds.
        entries: for each of them, what is set in each parameter group: `lr`, and what cycles with it.
    """

    every: int
    entries: tuple[tuple[Mapping[str, Any], ...], ...]

    def at(self, step: int) -> tuple[Mapping[str, Any], ...]:
        return self.entries[min(step // self.every, len(self.entries) - 1)]


def optimizer_of(module: nn.Module) -> tuple[optim.Optimizer, LRScheduler | None, bool]:
    """The module's own optimizer, its scheduler, and whether that is stepped after each step (else each epoch).

    Raises:
        Misfit: it has several, or its scheduler needs what is measured.
    """
    name = f"{type(module).__name__}.configure_optimizers"
    with calling(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = module.configure_optimizers()  # type: ignore[operator]
    schedulers: Any = []
    if isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(each, list | tuple) for each in found):
        found, schedulers = found
    if isinstance(found, list | tuple):
        if len(found) != 1:
            raise Misfit(f"{name} returns {len(found)} optimizers; allowed: one")
        found = found[0]
    if isinstance(found, Mapping):
        if left := set(found) - {"optimizer", "lr_scheduler", "monitor"}:
            raise Misfit(f"{name} returns {min(left)}; allowed: optimizer, lr_scheduler")
        schedulers = [found["lr_scheduler"]] if found.get("lr_scheduler") is not None else schedulers
        found = found.get("optimizer")
    if not isinstance(found, optim.Optimizer):
        raise Misfit(f"{name} returns a {type(found).__name__}; allowed: one torch.optim.Optimizer")
    if isinstance(found, optim.LBFGS):
        raise Misfit(f"{name} returns LBFGS, which evaluates the loss several times per step; allowed: any other")
    if len(schedulers) > 1:
        raise Misfit(f"{name} returns {len(schedulers)} schedulers; allowed: one")
    scheduler, each_step = _scheduler(name, schedulers[0]) if schedulers else (None, False)
    return found, scheduler, each_step


def _scheduler(name: str, found: Any) -> tuple[LRScheduler, bool]:
    config = found if isinstance(found, Mapping) else {"scheduler": found}
    scheduler, interval = config.get("scheduler"), config.get("interval", "epoch")
    if isinstance(scheduler, ReduceLROnPlateau):
        raise Misfit(f"{name} returns ReduceLROnPlateau, which depends on a metric; allowed: a function of the step")
    if not isinstance(scheduler, LRScheduler):
        raise Misfit(f"{name} returns a {type(scheduler).__name__} as scheduler; allowed: one of torch.optim")
    if interval not in ("step", "epoch") or config.get("frequency", 1) != 1:
        shown = f"interval {interval} and frequency {config.get('frequency', 1)}"
        raise Misfit(f"{name} returns a scheduler with {shown}; allowed: interval step or epoch, frequency 1")
    return scheduler, bool(interval == "step")


def rates_of(module: nn.Module, length: RunLength) -> Rates:
    """The settings of every step. Raises Misfit for a scheduler that ends before the run, and as `optimizer_of`."""
    optimizer, scheduler, each_step = optimizer_of(module)
    every = 1 if each_step else length.steps_per_epoch
    entries = [_settings(optimizer)]
    if scheduler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has not taken a step
            for _ in range(-(-length.total_steps // every) - 1):
                try:
                    scheduler.step()
                except ValueError as error:  # OneCycleLR
                    what = f"its scheduler takes {len(entries)} steps, and the run {length.total_steps // every}"
                    raise Misfit(f"{type(module).__name__}.configure_optimizers: {what}: {error}") from None
                entries.append(_settings(optimizer))
    return Rates(every, tuple(entries))


def _settings(optimizer: optim.Optimizer) -> tuple[Mapping[str, Any], ...]:
    """What a scheduler may change: numbers, and tuples of them."""
    kinds = (int, float, tuple)
    return tuple(
        {
            name: float(value) if isinstance(value, Tensor) else value
            for name, value in group.items()
            if name != "params" and isinstance(value, (*kinds, Tensor)) and not isinstance(value, bool)
        }
        for group in optimizer.param_groups
    )


# ── a look at it beforehand ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Lightning:
    """What lehr knows of a LightningModule before the first step: the same on every worker.

    Attributes:
        logged: the names that its validation step logs.
        logged_in_test: those of the step that measures the test split.
        rates: its own optimizer's settings; None where the job's optimizer and schedule train it.
        mean: whether its loss is a mean over rows, so that workers and parts of a batch add up to the whole.
        notes: what a user should know, a sentence each.
    """

    logged: tuple[str, ...] = ()
    logged_in_test: tuple[str, ...] = ()
    rates: Rates | None = None
    mean: bool = True
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def learning_rate(self) -> Callable[[int], float] | None:
        """The rate of the first parameter group as a function of the step; None where the job's schedule decides it."""
        rates = self.rates
        return (lambda step: float(rates.at(step)[0]["lr"])) if rates else None

    def names(self, split: str) -> tuple[str, ...]:
        """What is logged for a split."""
        return self.logged_in_test if split == "test" else self.logged


def inspect_module(
    module: nn.Module, shape: tuple[int, int, int], outputs: int, length: RunLength, dtype: torch.dtype
) -> Lightning:
    """Tries the steps of a LightningModule, to which a `Trainer` is attached, on a few rows of noise.

    Raises:
        Misfit, TrainingError, OwnCodeError: why it does not fit.
    """
    if not getattr(module, "automatic_optimization", True):
        raise Misfit(f"{type(module).__name__} has automatic_optimization = False; lehr takes the optimizer's steps")
    trainer: Trainer = module._trainer  # type: ignore[assignment]
    trainer.notes.clear()
    noise = torch.rand(_PROBE_ROWS, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.arange(_PROBE_ROWS) % outputs
    before = _kept(module)
    mode, step = module.training, TrainingStep(module)
    with _apart():
        step.eval()  # without dropout, and without the rows seeing each other in a batch norm
        whole, rows = (_losses(step, noise, targets, size) for size in (_PROBE_ROWS, 1))
        logged = {split: _row_means(module, split, noise, targets) for split in ("validation", "test")}
    module.train(mode)
    if changed := [name for name, value in _kept(module).items() if before.get(name, value) != value]:
        what = f"{type(module).__name__} changes self.{changed[0]} in a step, which no checkpoint holds"
        raise Misfit(f"{what}; allowed: a buffer (register_buffer), which it does")
    own = defines(module, "configure_optimizers")
    notes = list(trainer.notes.values())
    rates = rates_of(module, length) if own else None
    if rates:
        kind = type(optimizer_of(module)[0]).__name__
        notes.append(f"{type(module).__name__} configures its own optimizer: {kind}, lr {rates.at(0)[0]['lr']:g}")
    if defines(module, "predict_step"):
        notes.append(f"{type(module).__name__}.predict_step is not called: lehr predicts with forward")
    return Lightning(tuple(logged["validation"]), tuple(logged["test"]), rates, _near(whole, rows), tuple(notes))


def _losses(step: TrainingStep, inputs: Tensor, targets: Tensor, size: int) -> float:
    """The mean of the losses over batches of this size."""
    losses = [
        step(part, labels, 0).item() for part, labels in zip(inputs.split(size), targets.split(size), strict=True)
    ]
    return sum(losses) / len(losses)


@torch.no_grad()
def _row_means(module: nn.Module, split: str, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What a step logs. Raises Misfit for a value that is no mean over rows."""
    whole = measure(module, split, inputs, targets, 0)
    rows = [measure(module, split, inputs[i : i + 1], targets[i : i + 1], 0) for i in range(len(inputs))]
    for name, value in whole.items():
        if not all(name in row for row in rows) or not _near(value.item(), sum(row[name].item() for row in rows) / 4):
            what = f"{step_of(module, split)} logs {name}, which is no mean over the rows of its batch"
            raise Misfit(f"{what}; allowed: means over rows, which are exact over batches; others under metrics")
    return whole


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-3 * max(1e-6, abs(one), abs(other)) or one != one


def _kept(module: nn.Module) -> dict[str, str]:
    """What the module keeps in plain attributes, which checkpoints do not hold."""
    plain = (int, float, str, list, dict, tuple, set)
    return {
        name: repr(value)[:10_000]
        for name, value in vars(module).items()
        if isinstance(value, plain) and not name.startswith("_") and name != "training"
    }


@contextmanager
def _apart() -> Iterator[None]:
    """What is drawn within leaves no trace."""
    drawn, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numbers)
