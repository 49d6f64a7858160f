"""Tells the job's callbacks what happens in an attempt, on the first worker, and all workers what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lehr.errors import LehrError
from lehr.job import to_dict
from lehr.runs import Checkpoint, RunFolder
from lehr.training.callbacks import Callbacks, Moment
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.state import TrainingState

NOT_METRICS = ("epoch", "step", "seconds", "examples_per_second")
"""Columns of the record of epochs that are no metrics."""


class Teller:
    """The job's callbacks during one attempt, which began with `checkpoint`, if there is one.

    Attributes:
        callbacks: the same on every worker but for the objects themselves, which the first one has.
    """

    def __init__(
        self, plan: Plan, run: RunFolder, group: Group, model: nn.Module, attempt: int, begun: Checkpoint | None
    ) -> None:
        self._plan, self._run, self._group, self._model = plan, run, group, model
        self._attempt, self._begun = attempt, begun
        self.callbacks = Callbacks(plan.job, first=group.first)
        if begun and (state := begun.state.get("callbacks")):
            self.callbacks.load(state)

    def resumed(self, state: TrainingState) -> None:
        """Tells again of the checkpoint that a resumed attempt began with: what was told of it may have been lost."""
        if self._begun:
            self.saved(state, self._begun.name)

    def tell(self, hook: str, state: TrainingState, **fields: Any) -> None:
        """Something happened after which nobody may ask to stop."""
        if self._plan.job.callbacks and self._group.first:
            self.callbacks.tell(hook, self._moment(state), **fields)

    def saved(self, state: TrainingState, checkpoint: str) -> None:
        """A checkpoint of this name is in the run folder."""
        self.tell("checkpoint", state, checkpoint=f"{self._run.folder.uri}/checkpoints/{checkpoint}")

    def epoch(self, state: TrainingState, metrics: Mapping[str, float], save: Callable[[], object]) -> str | None:
        """An epoch has ended; returns why training ends there, on every worker, if a callback asks for that.

        After a resume it may be one that the callbacks know already: then it returns what they answered.

        Args:
            save: saves a checkpoint, after which this epoch is told again; called where a callback fails.
        """
        callbacks, epoch = self.callbacks, state.step // self._plan.length.steps_per_epoch
        if not self._plan.job.callbacks or callbacks.told >= epoch:
            return callbacks.stop or None
        asked = ""
        if self._group.first:
            try:
                asked = callbacks.epoch(
                    self._moment(state), {name: metrics[name] for name in metrics if name not in NOT_METRICS}
                )
            except LehrError:
                save()
                raise
        callbacks.told, asked = epoch, self._group.broadcast(asked)
        if asked and state.step < self._plan.length.total_steps:
            callbacks.stop = f"stopped early after epoch {epoch}: {asked}"
        return callbacks.stop or None

    def _moment(self, state: TrainingState) -> Moment:
        length = self._plan.length
        return Moment(
            job=to_dict(self._plan.job),
            run=self._run.folder.uri,
            step=state.step,
            total_steps=length.total_steps,
            epoch=state.step // length.steps_per_epoch,
            epochs=self._plan.job.train.epochs,
            workers=self._group.size,
            attempt=self._attempt,
            resumed_from=self._begun.step if self._begun else None,
            _weights=self._model.state_dict,
            _network=self._plan.build_model,
        )
