"""Callbacks: objects of the user's own that see a training, and may ask it to stop. `callbacks` of a job names them.

They are called on the first worker only, since whatever they see (losses, metrics, weights) is that of all workers.
They cannot change the training: they get copies, and the random generators, the default type and the gradient mode are
put back after each call. What they keep can be saved with the checkpoints (`state_dict`), so that a resumed run's
callback goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lehr import trust
from lehr.errors import TrainingError
from lehr.job import CallbackSection, TrainJob, check_call
from lehr.job.text import hint, show
from lehr.own_code import calling

HOOKS: Mapping[str, str] = {
    "run_start": "an attempt begins; `resumed_from` is its step if it resumes",
    "evaluation_end": "splits were evaluated; `metrics` holds theirs. May ask to stop",
    "epoch_end": "an epoch is evaluated and recorded; `metrics` holds all of it. May ask to stop",
    "checkpoint": "a checkpoint was saved, at `checkpoint`",
    "run_end": "the run is finished, stopped or failed: `status` and `message`; `metrics` are those of its model",
}
"""The methods that a callback may have, each called with a `Moment`: name -> when."""
MAY_STOP = ("evaluation_end", "epoch_end")
STATE = ("state_dict", "load_state_dict")
_LIKE_A_HOOK = ("on_", "before_", "after_"), ("_start", "_end", "_begin")
_NOT_OF_AN_EVALUATION = ("train_loss", "learning_rate")


@dataclass(frozen=True)
class Moment:
    """What a callback sees. All of it is a copy.

    Attributes:
        job: the job as resolved, plain values.
        run: path or URI of the run folder.
        step, total_steps: optimizer steps taken, and those of the whole run.
        epoch, epochs: whole epochs done, and those of the whole run.
        metrics: by name, as `lehr show` has them; empty at `run_start` and `checkpoint`.
        rank, workers: of this worker, which is always the first (0), and how many there are.
        attempt: the number of this start of the run's workers, from 1.
        resumed_from: the step of the checkpoint that this attempt began with; None where it began from scratch.
        checkpoint: path or URI of the checkpoint that was saved; else empty.
        status, message: at `run_end`, how the run ended (finished, stopped, failed) and why; else empty.
    """

    job: Mapping[str, Any]
    run: str
    step: int
    total_steps: int
    epoch: int
    epochs: int
    workers: int
    attempt: int
    resumed_from: int | None
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    rank: int = 0
    checkpoint: str = ""
    status: str = ""
    message: str = ""
    _weights: Callable[[], dict[str, Tensor]] = field(default=dict, repr=False)
    _network: Callable[[], nn.Module] = field(default=nn.Identity, repr=False)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU, by name as in the network's state dict; at `run_end` the run's model."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._weights().items()}

    def model(self) -> nn.Module:
        """A new network with those weights, on the CPU, in evaluation mode."""
        network = self._network()
        network.load_state_dict(self.weights())
        return network.eval()


def check_callbacks(job: TrainJob) -> None:
    """Raises JobError for a callback that cannot be called with its options, or that no hook would ever call."""
    for number, section in enumerate(job.callbacks):
        at = f"callbacks.{number}"
        try:
            found = trust.load(_call(section))
        except ValueError as error:
            raise job.error(at, f'"{section.name}" is not a callback: {error}') from None
        if not callable(found):
            raise job.error(at, f"{section.name} cannot be called; allowed: a class, or a function that returns one")
        check_call(found, section.options, field=at, error=job.error)
        if inspect.isclass(found) and (problem := _problem(found)):
            raise job.error(at, f"{section.name} {problem}")


class Callbacks:
    """The callbacks of one attempt at a run. Other workers than the first have none, and learn what was asked.

    Attributes:
        stop: why one of them asked to stop, the same on every worker; empty where none has.
        told: for how many epochs they were called.
    """

    def __init__(self, job: TrainJob, *, first: bool) -> None:
        self.stop, self.told = "", 0
        self._own = [(section.name, _build(section)) for section in job.callbacks] if first else []
        self._before: list[Any] | None = None  # their states before a call that failed

    def epoch(self, moment: Moment, metrics: Mapping[str, float]) -> str:
        """Calls `evaluation_end`, then `epoch_end`; returns why to stop, or nothing.

        If one fails, `state` is as it was before, so that a resumed run calls them again for this epoch.
        """
        before = self._states()
        seen = {name: value for name, value in metrics.items() if name not in _NOT_OF_AN_EVALUATION}
        try:
            asked = self.tell("evaluation_end", moment, metrics=seen)
            return asked or self.tell("epoch_end", moment, metrics=metrics)
        except BaseException:
            self._before = before
            raise

    def tell(self, hook: str, moment: Moment, **fields: Any) -> str:
        """Calls one method of every callback that has it; returns the first reason to stop, with whose it is.

        Raises:
            LehrError: one failed, or returned what it may not.
        """
        reasons = []
        moment = replace(moment, **fields)
        moment = replace(moment, metrics=MappingProxyType(dict(moment.metrics)))
        for name, own in self._own:
            if not callable(method := getattr(own, hook, None)):
                continue
            with _apart(), calling(f"{name}.{hook}", epoch=moment.epoch, step=moment.step):
                answer = _without_exit(name, hook, method, replace(moment, job=copy.deepcopy(moment.job)))
            if answer is None:
                continue
            if hook not in MAY_STOP:
                raise TrainingError(f"{name}.{hook} returns {show(answer)}; allowed: nothing; {_who_may_stop()}")
            if not isinstance(answer, str) or not answer.strip():
                raise TrainingError(f"{name}.{hook} returns {show(answer)}; allowed: nothing, or why to stop, as text")
            reasons.append(f"{name} asks to stop: {answer.strip()}")
        return reasons[0] if reasons else ""

    def state(self) -> dict[str, Any]:
        """For a checkpoint's state: plain values. Raises TrainingError where a callback's own are not."""
        states = self._states() if self._before is None else self._before
        return {"stop": self.stop, "told": self.told, "states": states}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned when the checkpoint was saved."""
        self.stop, self.told = state["stop"], state["told"]
        for (name, own), kept in zip(self._own, state["states"], strict=False):
            if kept is not None:
                with _apart(), calling(f"{name}.load_state_dict"):
                    own.load_state_dict(kept)

    def _states(self) -> list[Any]:
        return [_state(name, own) for name, own in self._own]


def _call(section: CallbackSection) -> trust.Call:
    return trust.named("callback", section.name, section.options)[0]


def _build(section: CallbackSection) -> Any:
    """The callback. Raises TrainingError if a function made something that no hook would ever call."""
    make = trust.load(_call(section))
    with _apart(), calling(section.name, **section.options):
        own = make(**section.options)
    if problem := _problem(own):
        raise TrainingError(f"callbacks: {section.name} {problem}")
    return own


def _problem(own: object) -> str:
    """Why an object, or a class, is no callback, as the rest of a sentence; empty where it is one."""
    known = [*HOOKS, *STATE]
    kind = own if inspect.isclass(own) else type(own)
    methods = [name for name in dir(kind) if not name.startswith("_") and callable(inspect.getattr_static(kind, name))]
    starts, ends = _LIKE_A_HOOK
    for name in methods:
        if name not in known and (name.startswith(starts) or name.endswith(ends)):
            return f"has a method {name}, which nothing calls" + hint(name.removeprefix("on_"), HOOKS)
    if not any(name in HOOKS for name in methods):
        return f"has none of the methods of a callback; allowed: {', '.join(HOOKS)}"
    if len(kept := [name for name in STATE if name in methods]) == 1:
        return f"has {kept[0]} alone; allowed: both state_dict and load_state_dict, or neither"
    return ""


def _state(name: str, own: Any) -> Any:
    if not hasattr(own, "state_dict"):
        return None
    with _apart(), calling(f"{name}.state_dict"):
        state = copy.deepcopy(own.state_dict())
    if not isinstance(state, dict) or not _is_plain(state):
        what = "text, numbers, true, false, None, lists, and mappings with text as keys"
        raise TrainingError(f"{name}.state_dict returns {show(state)}; allowed: a mapping of plain values: {what}")
    return state


def _is_plain(value: object) -> bool:
    """Whether a value comes back from JSON as it was."""
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _without_exit(name: str, hook: str, method: Callable[[Moment], Any], moment: Moment) -> Any:
    try:
        return method(moment)
    except SystemExit:
        raise TrainingError(f"{name}.{hook} ends the process; {_who_may_stop()}") from None


def _who_may_stop() -> str:
    return f"to stop the run, {' or '.join(MAY_STOP)} returns why, as text"


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """What is drawn or set within leaves no trace: random generators, gradient mode, default type, threads."""
    drawn, numbers = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(True):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numbers)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
