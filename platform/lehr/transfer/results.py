"""What the trials of a transfer achieved, read from their run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lehr.errors import RunError
from lehr.formatting import format_seconds
from lehr.intervals import in_words
from lehr.job import TrainJob, from_dict
from lehr.job.training import tie_breaker
from lehr.job.transfer import Strategy
from lehr.runs import ModelFile, Progress, RunFolder, RunOutcome

STRATEGY_NAMES: dict[Strategy, str] = {
    "features": "features",
    "finetune": "fine-tuning",
    "scratch": "from scratch",
}
HEAD_ONLY = "head only"
"""What fine-tuning is called whose kept model is of an epoch before anything below the head was trained."""


@dataclass(frozen=True)
class StrategyTrial:
    """One trial: a strategy on this many images of each class (None: all of them)."""

    strategy: Strategy
    per_class: int | None
    run: RunFolder

    @property
    def result(self) -> RunOutcome | Progress:
        """How the trial ended, or how far it is."""
        return self.run.outcome() or self.run.progress()

    @property
    def accuracy(self) -> float | None:
        """The validation accuracy of its best model, 0 to 1."""
        return accuracy_of(self.run)

    @property
    def test_accuracy(self) -> float | None:
        """The test accuracy of its best model, 0 to 1."""
        return self.result.metrics.get("test_accuracy")

    @property
    def called(self) -> str:
        """What it is, for people."""
        return called(self.strategy, self.run)

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return self.run.epochs().num_rows

    @property
    def seconds(self) -> float:
        """Seconds of training, that of its features included where it was the first to need them."""
        return float(np.nansum(self.run.epochs()["seconds"].to_numpy()))

    @property
    def trained(self) -> str:
        """`5,130 of 11,181,642` parameters that its kept model has trained; empty where the run does not say."""
        origin = _origin(self.run)
        count, whole = origin.get("trained_parameters"), origin.get("parameters")
        return f"{count:,} of {whole:,}" if isinstance(count, int) and isinstance(whole, int) else ""

    def curve(self) -> tuple[list[float], list[float]]:
        """(seconds of training, validation accuracy in percent of the best model until then) after every epoch.

        It ends at what `accuracy` is: the model that is kept.
        """
        best, job = self.result.best, from_dict(self.run.job)
        assert isinstance(job, TrainJob)
        rows, sign = self.run.epochs().to_pylist(), -1 if job.lower_is_better(best.metric) else 1
        by_loss = tie_breaker(best.metric) if best.loss is not None else ""  # older runs kept the first of equal ones
        kept = rows[0]

        def rank(row: Mapping[str, float | None]) -> tuple[float, float]:
            value, loss = row.get(best.metric), row.get(by_loss)
            known = -math.inf if value is None or math.isnan(value) else sign * value
            return known, 0.0 if loss is None or math.isnan(loss) else -loss

        accuracies: list[float] = []
        for row in rows:
            kept = max(kept, row, key=rank)
            accuracies.append(100 * kept[_accuracy_column(best.metric)])
        return np.cumsum([row["seconds"] for row in rows]).tolist(), accuracies

    def sentence(self, rows: int) -> str:
        """How it went, in a line for people.

        Args:
            rows: validation images.
        """
        accuracy = "no accuracy" if self.accuracy is None else in_words(self.accuracy, rows)
        kept = "" if self.strategy == "features" else f", epoch {self.result.best.epoch} of {self.epochs} kept"
        trained = f", {self.trained} parameters trained" if self.trained else ""
        return f"{self.called}: {accuracy} on {rows:,} validation images{kept}, {format_seconds(self.seconds)}{trained}"


def called(strategy: Strategy, run: RunFolder) -> str:
    """What the kept model of a trial is, for people: not fine-tuned where nothing below its head was trained."""
    untouched = strategy == "finetune" and _origin(run).get("trained_blocks") == 0
    return HEAD_ONLY if untouched else STRATEGY_NAMES[strategy]


def _origin(run: RunFolder) -> Mapping[str, object]:
    """What the model of a run says of where it is from; nothing before there is one."""
    try:
        origin = ModelFile.read(run.folder).description.get("from")
    except RunError:
        return {}
    return origin if isinstance(origin, Mapping) else {}


def _accuracy_column(metric: str) -> str:
    """The column of the accuracy of the weights that a metric chooses."""
    return "averaged_validation_accuracy" if metric.startswith("averaged_") else "validation_accuracy"


def accuracy_of(run: RunFolder) -> float | None:
    """The validation accuracy of a trial's best model, 0 to 1, whatever metric chose it; None before there is one.

    Raises:
        RunError: another metric chose it, and the record of its epoch is gone.
    """
    outcome = run.outcome()
    best = (outcome or run.progress()).best
    name = _accuracy_column(best.metric)
    if best.metric == name or best.value is None:
        return best.value
    rows = [row for row in run.epochs().to_pylist() if row["epoch"] == best.epoch]
    value = rows[-1].get(name) if rows else None
    if value is None and outcome and outcome.status == "finished":
        what = f"the record of epoch {best.epoch}, which has the accuracy of its best model, is gone"
        raise RunError(f"{run.folder.uri}: {what}; delete this folder, and it is trained again")
    return None if value is None else float(value)


def strategy_trials(run: RunFolder) -> list[StrategyTrial]:
    """The trials of a transfer that have measured something, those on all images first."""
    found = []
    for child in run.children("trials"):
        name, _, count = child.name.partition("-")
        strategy = next((each for each in STRATEGY_NAMES if each == name), None)
        if strategy and child.epochs().num_rows:
            found.append(StrategyTrial(strategy, int(count) if count else None, child))
    order = list(STRATEGY_NAMES)
    return sorted(
        found, key=lambda each: (each.per_class is not None, -(each.per_class or 0), order.index(each.strategy))
    )
