"""What a run recorded, as arrays: all that charts and diagnosis look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lehr.curves.smoothing import Floats, last_of_each
from lehr.errors import RunError
from lehr.runs import RunFolder


@dataclass(frozen=True)
class Curves:
    """The curves of one run and what must be known of its job to read them.

    Attributes:
        steps: column -> float64 [recorded steps], ascending by step, each step once; NaN: not measured.
        epochs: column -> float64 [recorded epochs], ascending by epoch, each once; NaN: not measured.
        job: the job as resolved, as a plain tree.
        classes: number of classes, or None where the run does not say.
        validation_rows: rows of the validation split, or None.
        train_rows: rows of the training split, or None.
        name: the run's name.
        ended: whether the run came to its end; False while it trains, and after a stop or a failure.
        broken: what the run itself says of a loss that was no longer a number; empty if it never was.
        restarts: the steps from which it went on after it was stopped or lost.
    """

    steps: Mapping[str, Floats]
    epochs: Mapping[str, Floats]
    job: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    validation_rows: int | None = None
    train_rows: int | None = None
    name: str = ""
    ended: bool = True
    broken: str = ""
    restarts: tuple[int, ...] = ()

    @classmethod
    def read(cls, run: RunFolder) -> Curves:
        """Everything a run has recorded so far. Raises RunError where its folder is damaged."""
        events, progress = run.events(), run.progress()
        started = next((event for event in events if event["kind"] == "started"), {})
        diverged = next((event["message"] for event in reversed(events) if event["kind"] == "diverged"), "")
        failed = progress.get("message", "") if progress.get("status") == "failed" else ""
        return cls(
            steps=_arrays(run.steps(), "step"),
            epochs=_arrays(run.epochs(), "epoch"),
            job=run.job,
            classes=started.get("classes") or _classes_of_model(run),
            validation_rows=started.get("validation_rows"),
            train_rows=started.get("train_rows"),
            name=run.name,
            ended=progress.get("status") == "finished",
            broken=diverged or (failed if "became" in failed else ""),
            restarts=_restarts(events),
        )

    def epoch_column(self, *names: str) -> Floats:
        """The first of the named epoch columns that has a value; all NaN if none has."""
        for name in names:
            column = self.epochs.get(name)
            if column is not None and np.isfinite(column).any():
                return column
        return np.full(len(self.epochs["epoch"]), np.nan)

    def first(self, epochs: int) -> Curves:
        """The record as it was after so many epochs."""
        steps, rows = self.steps["epoch"] < epochs, self.epochs["epoch"] <= epochs
        return dataclasses.replace(
            self,
            steps={name: column[steps] for name, column in self.steps.items()},
            epochs={name: column[rows] for name, column in self.epochs.items()},
        )

    def option(self, path: str, default: Any = None) -> Any:
        """A field of the job by its dotted path."""
        value: Any = self.job
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in an epoch; 1 where nothing was recorded."""
        step, epoch = self.steps["step"], self.steps["epoch"]
        return float(step[-1] / epoch[-1]) if len(step) and epoch[-1] > 0 else float(max(len(step), 1))

    def bounds(self) -> tuple[float, float]:
        """First and last epoch of the record, for an x axis."""
        last = max([0.0, *self.epochs["epoch"][-1:], *self.steps["epoch"][-1:]])
        return 0.0, float(last)


def _restarts(events: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    starts = [event for event in events if event["kind"] in ("started", "resumed")]
    return tuple(step for event in starts[1:] if isinstance(step := event.get("step", 0), int))


def _classes_of_model(run: RunFolder) -> int | None:
    try:
        return len(run.folder.read_json("model/model.json")["description"]["classes"])
    except (FileNotFoundError, RunError, KeyError, TypeError):
        return None


def _arrays(table: pa.Table, order: str) -> dict[str, Floats]:
    numbers = {name: column for name, column in zip(table.column_names, table.columns, strict=True) if _numeric(column)}
    arrays = {name: np.asarray(column.to_numpy(zero_copy_only=False), np.float64) for name, column in numbers.items()}
    steps: NDArray[np.int64] = arrays[order].astype(np.int64)
    index = last_of_each(steps)
    return {name: array[index] for name, array in arrays.items()}


def _numeric(column: pa.ChunkedArray) -> bool:
    return pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
