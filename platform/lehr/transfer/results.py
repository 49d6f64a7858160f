"""What the trials of a transfer achieved, read from their run folders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lehr.errors import RunError
from lehr.job.transfer import Strategy
from lehr.runs import Progress, RunFolder, RunOutcome

STRATEGY_NAMES: dict[Strategy, str] = {
    "features": "features",
    "finetune": "fine-tuning",
    "scratch": "from scratch",
}


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

    def curve(self) -> tuple[list[float], list[float]]:
        """(seconds since training began, validation accuracy in percent) after every epoch."""
        epochs = self.run.epochs()
        seconds = np.cumsum(epochs["seconds"].to_numpy()).tolist()
        return seconds, (100 * epochs["validation_accuracy"].to_numpy()).tolist()


def accuracy_of(run: RunFolder) -> float | None:
    """The validation accuracy of a trial's best model, 0 to 1, whatever metric chose it; None before there is one.

    Raises:
        RunError: another metric chose it, and the record of its epoch is gone.
    """
    outcome = run.outcome()
    best = (outcome or run.progress()).best
    name = "averaged_validation_accuracy" if best.metric.startswith("averaged_") else "validation_accuracy"
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
