"""What a run recorded, as arrays: all that charts and diagnosis read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lehr.errors import RunError
from lehr.reporting.smoothing import Floats, Indices
from lehr.runs import DataSurvey, ModelFile, NetworkSurvey, RunFolder, Survey
from lehr.tasks.forms import USUAL


@dataclass(frozen=True)
class Curves:
    """The curves of one run and what must be known of its job to read them.

    Attributes:
        steps: column -> float64 [recorded steps], ascending by step, each step once; NaN: not measured.
        epochs: column -> float64 [recorded epochs], ascending by epoch, each once; NaN: not measured.
        job: the job as resolved, as a plain tree.
        classes: number of classes, or None where the run does not say, or a row has no one class.
        score, score_chance: what the run's task is judged by, and the level of a guess; NaN where that is not known.
        chance_loss: the loss while the network tells nothing apart, or NaN.
        validation_rows: rows of the validation split, or None.
        image: height, width and channels of the images that the network is given, or None where the run does not say.
        name: the run's name.
        divergence: the run's own sentence about a loss that exploded or became NaN; empty if it never did.
        restarts: the steps from which it was resumed after a stop or a loss of its workers.
        own_validation: whether the validation rows have a source of their own, so that no seed draws them.
        kept: the epoch of the run's model, as its outcome says; None where it says none.
        survey, network: what was known of rows and network at the first step; empty where nothing was recorded.
    """

    steps: Mapping[str, Floats]
    epochs: Mapping[str, Floats]
    job: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    chance_loss: float = math.nan
    validation_rows: int | None = None
    image: tuple[int, int, int] | None = None
    name: str = ""
    divergence: str = ""
    restarts: tuple[int, ...] = ()
    own_validation: bool = False
    survey: DataSurvey = field(default_factory=DataSurvey)
    network: NetworkSurvey = field(default_factory=NetworkSurvey)
    score: str = "accuracy"
    score_chance: float = math.nan
    kept: int | None = None

    @property
    def by_class(self) -> bool:
        """Whether each row has one class, so that accuracy means something."""
        return bool(self.option("task.name", USUAL) == USUAL)

    @classmethod
    def read(cls, run: RunFolder) -> Curves:
        """Everything a run has recorded so far. Raises RunError where its folder is damaged."""
        events = run.events()
        starts = [event for event in events if event["kind"] in ("started", "resumed")]
        started: Mapping[str, Any] = next((event for event in starts if event["kind"] == "started"), {})
        surveyed = Survey.read(run.folder)
        diverged = [str(event["message"]) for event in events if event["kind"] == "diverged"]
        described = _model(run)
        classes = _count(started, "classes") or _classes(described)
        score, chance = started.get("score"), started.get("chance")
        return cls(
            steps=_arrays(run.steps(), "step", f"{run.folder.uri}/steps"),
            epochs=_arrays(run.epochs(), "epoch", f"{run.folder.uri}/epochs"),
            job=run.job,
            classes=classes,
            chance_loss=_chance_loss(started, run.job, classes),
            validation_rows=_count(started, "validation_rows"),
            image=_image(described),
            name=run.name,
            divergence=diverged[-1] if diverged else _divergence_at_the_end(run),
            restarts=tuple(step for event in starts[1:] if isinstance(step := event.get("step", 0), int)),
            own_validation=_own_validation(run),
            survey=surveyed.data,
            network=surveyed.network,
            score=score if isinstance(score, str) else "accuracy",
            score_chance=float(chance) if isinstance(chance, int | float) else math.nan,
            kept=(run.outcome() or run.progress()).best.epoch,
        )

    def epoch_column(self, *names: str) -> Floats:
        """The first of the named epoch columns that has a value; all NaN if none has."""
        for name in names:
            column = self.epochs.get(name)
            if column is not None and np.isfinite(column).any():
                return column
        return np.full(len(self.epochs["epoch"]), np.nan)

    def first_epochs(self, count: int) -> Curves:
        """The record as it was after the first `count` epochs."""
        steps, rows = self.steps["epoch"] < count, self.epochs["epoch"] <= count
        return dataclasses.replace(
            self,
            steps={name: column[steps] for name, column in self.steps.items()},
            epochs={name: column[rows] for name, column in self.epochs.items()},
        )

    def option(self, path: str, default: Any = None) -> Any:
        """A field of the job by its dotted path; where the default is a number, it stands for whatever is none."""
        value: Any = self.job
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(default, int | float) and not (isinstance(value, int | float) and abs(value) < MOST):
            return default
        return default if value is None else value

    @property
    def rows_per_class(self) -> float:
        """Training rows for each class, on average; NaN where that is not known."""
        return self.survey.train.rows / self.classes if self.survey.train.rows and self.classes else math.nan

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps per epoch; 1 where nothing was recorded."""
        step, epoch = self.steps["step"], self.steps["epoch"]
        return float(step[-1] / epoch[-1]) if len(step) and epoch[-1] > 0 else float(max(len(step), 1))

    @property
    def last_epoch(self) -> float:
        """The epoch, with a fraction, at which the record ends; 0 where nothing was recorded."""
        return float(max([0.0, *self.epochs["epoch"][-1:], *self.steps["epoch"][-1:]]))


def last_of_each(steps: NDArray[np.int64]) -> Indices:
    """Indices [distinct steps] that put records in order of their step, with the last record of each step.

    A run that was resumed by hand may hold a step twice; the later record is of the weights that were kept.
    """
    backwards = len(steps) - 1
    _, index = np.unique(steps[::-1], return_index=True)
    return (backwards - index).astype(np.int64)


def _own_validation(run: RunFolder) -> bool:
    data = run.environment.data
    return bool(data and isinstance(data.rows, Mapping) and "validation" in data.rows)


def _count(event: Mapping[str, Any], name: str) -> int | None:
    value = event.get(name)
    return value if isinstance(value, int) else None


def _chance_loss(started: Mapping[str, Any], job: Mapping[str, Any], classes: int | None) -> float:
    """As the run says; that of cross entropy, ln(classes), where an older run does not."""
    said = started.get("chance_loss")
    if isinstance(said, int | float):
        return float(said)
    loss = job.get("loss")
    name = loss.get("name", "cross_entropy") if isinstance(loss, Mapping) else "cross_entropy"
    return math.log(classes) if classes and name == "cross_entropy" else math.nan


def _divergence_at_the_end(run: RunFolder) -> str:
    """The message of a run that failed since its loss "became" NaN or far too large; no event says so then."""
    outcome = run.outcome()
    return outcome.message if outcome and outcome.status == "failed" and "became" in outcome.message else ""


def _model(run: RunFolder) -> Mapping[str, Any]:
    """What the run says of its model; nothing where it has none yet, or a damaged one."""
    try:
        return ModelFile.read(run.folder).description
    except (FileNotFoundError, RunError):
        return {}


def _classes(described: Mapping[str, Any]) -> int | None:
    classes = described.get("classes") if described.get("task", USUAL) == USUAL else None
    return len(classes) if isinstance(classes, list) else None


def _image(described: Mapping[str, Any]) -> tuple[int, int, int] | None:
    prepared = described.get("preprocess")
    sizes = [prepared.get(each) for each in ("height", "width", "channels")] if isinstance(prepared, Mapping) else []
    height, width, channels = (each if isinstance(each, int) else 0 for each in sizes or (0, 0, 0))
    return (height, width, channels) if height and width and channels else None


PLACES = {"step": {"step", "epoch", "learning_rate"}, "epoch": {"step", "epoch"}}
"""By the column that orders a table, what every row has; all other columns may hold any number, or none."""
MOST = 1e15


def _arrays(table: pa.Table, order: str, where: str) -> dict[str, Floats]:
    """The columns of numbers in order. Raises RunError where a row has no place."""
    numbers = {name: column for name, column in zip(table.column_names, table.columns, strict=True) if _numeric(column)}
    arrays = {name: np.asarray(column.to_numpy(zero_copy_only=False), np.float64) for name, column in numbers.items()}
    for name in PLACES[order] & arrays.keys():
        values = arrays[name]
        if len(values) and not (np.isfinite(values) & (values >= 0) & (values <= MOST)).all():
            raise RunError(f"{where}: is damaged: {name.replace('_', ' ')} holds what is no number from 0 to {MOST:g}")
    # A float32 ends at 3e38: what is beyond 1e100 is as good as infinite, and neither scales nor averages can hold it.
    arrays = {
        name: np.where(np.abs(array) > 1e100, np.copysign(np.inf, array), array) for name, array in arrays.items()
    }
    index = last_of_each(arrays[order].astype(np.int64))
    return {name: array[index] for name, array in arrays.items()}


def _numeric(column: pa.ChunkedArray[Any]) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))
