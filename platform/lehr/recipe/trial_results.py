"""Steps 4 to 7 train hyperparameters: what was trained, for how long, and how well it went."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from lehr.curves.findings import as_yaml
from lehr.intervals import metric_in_words
from lehr.recipe.results import FrozenModel, Result
from lehr.recipe.steps import search_trial_folder


class Hyperparameters(FrozenModel):
    """What a trial changes in the base job.

    Attributes:
        rate: learning rate. decay: weight decay.
        changes: other fields of the job, such as label smoothing: (dotted path, value as JSON).
    """

    rate: float
    decay: float
    changes: tuple[tuple[str, str], ...] = ()

    def overrides(self) -> dict[str, Any]:
        return {"optimizer.lr": self.rate, "optimizer.weight_decay": self.decay} | {
            path: json.loads(value) for path, value in self.changes
        }

    def __str__(self) -> str:
        return ", ".join([f"learning rate {self.rate:g}", f"weight decay {self.decay:g}", *self.other_changes])

    @property
    def other_changes(self) -> list[str]:
        """`changes`, each in words: `loss.label_smoothing 0.1`."""
        return [f"{path} {as_yaml(json.loads(value))}" for path, value in self.changes]


@dataclass(frozen=True)
class TrainingPlan:
    """What a step trains.

    Attributes:
        settings: the most promising first.
        epochs: how many each of them reaches.
        left_out: why there was no search before, if so, as a sentence.
    """

    settings: tuple[Hyperparameters, ...]
    epochs: int
    left_out: str = ""


NO_TRAINING = TrainingPlan((), 0)


class TrialResult(FrozenModel):
    """How one trial went so far.

    Attributes:
        folder: its run folder inside the recipe's.
        values: the job's metric after each epoch. train: accuracy on clean training images after each epoch.
        failed: why it failed; empty if it did not. ended: why it ended.
        lower: whether lower values are better; older results do not say.
        losses: on the same rows after each epoch, which decide between equal values; none in older results.
    """

    setting: Hyperparameters
    folder: str
    values: tuple[float, ...]
    train: tuple[float, ...] = ()
    failed: str = ""
    ended: str = ""
    lower: bool | None = None
    losses: tuple[float, ...] = ()

    @property
    def epochs(self) -> int:
        return len(self.values)

    def sign(self, metric: str) -> float:
        """−1 if lower values of the metric are better, else 1."""
        return -1.0 if (metric.endswith("_loss") if self.lower is None else self.lower) else 1.0

    def score(self, metric: str) -> float:
        """The best value so far, turned so that higher is better; minus infinity if there is none."""
        return max((self.sign(metric) * value for value in self.values if math.isfinite(value)), default=-math.inf)

    def loss(self, metric: str) -> float:
        """The lowest loss among the epochs with the best value; infinite where it is not known."""
        best = self.best(metric)
        of_best = zip(self.values, self.losses, strict=False)
        return min((loss for value, loss in of_best if value == best and math.isfinite(loss)), default=math.inf)

    def best(self, metric: str) -> float:
        """The best value so far; infinite if there is none."""
        return self.sign(metric) * self.score(metric)

    def format_best(self, metric: str, rows: int | None = None) -> str:
        """The best value so far, for people; that of an accuracy with its interval on so many rows."""
        return format_metric(self.best(metric), metric, rows)

    def format_outcome(self, metric: str, rows: int | None = None) -> str:
        """The best value, or why the trial failed."""
        return self.failed or self.format_best(metric, rows)


class RoundDiagnosis(FrozenModel):
    """The first finding in the diagnosis of a trial's curves."""

    name: str
    title: str
    evidence: str
    overrides: dict[str, Any] = Field(default_factory=dict)


class SearchRound(Result):
    """One round of the search: its trials, and the diagnosis of the best trial of all rounds so far.

    Attributes:
        number: 0 for the coarse search, then 1, 2, ….
        metric: by which trials are compared. validation_rows: images on which it is measured. common: share of their
            most frequent class.
        trained: the trials of this round, new ones and those that continued.
        epochs: passes over the training images that this round added. updates: of the best trial, in all its rounds.
        best: folder of the best trial of this round and those before it. diagnosis: of its curves.
        seconds_per_epoch: wall time divided by the epochs of all trials; 0 where it was not measured.
        cut: what did not fit into the budget, as a sentence; empty if everything did.
        planned: epochs of each trial, which one that was cut short has not reached; 0 in older results.
    """

    number: int
    metric: str
    validation_rows: int
    common: float
    trained: tuple[TrialResult, ...]
    epochs: int
    updates: int
    best: str
    diagnosis: RoundDiagnosis
    seconds_per_epoch: float = 0.0
    cut: str = ""
    planned: int = 0


class FinalTraining(Result):
    """The training in full, with a decaying learning rate.

    Attributes:
        trained: the best of the final trainings. beside: the others.
        kept: folder of the run whose model is kept: of all that any step trained, the best on the validation rows.
        schedule: its name. value: the metric of the kept model. test: its test accuracy, if there is a test split.
        left_out: why there was no search, and cut: what did not fit into the budget, as sentences; else empty.
        metric: by which trainings are compared.
        validation_rows, test_rows: images on which they are measured; 0 in older results. common: the share of the most
            frequent class among those for validation.
    """

    trained: TrialResult
    kept: str
    schedule: str
    value: float
    test: float | None = None
    diagnosis: RoundDiagnosis
    beside: tuple[TrialResult, ...] = ()
    left_out: str = ""
    cut: str = ""
    metric: str = "validation_accuracy"
    validation_rows: int = 0
    test_rows: int = 0
    common: float = math.nan


def all_trials(rounds: Iterable[SearchRound]) -> dict[str, TrialResult]:
    """The trials of all rounds by folder, each with its newest result."""
    return {trial.folder: trial for each in rounds for trial in each.trained}


def ranked(trials: Iterable[TrialResult], metric: str) -> list[TrialResult]:
    """The best first; of equal ones that of the lower loss, then in the order in which they were first trained."""
    return sorted(trials, key=lambda trial: (-trial.score(metric), trial.loss(metric), trial.folder))


def best_trial(rounds: Sequence[SearchRound]) -> TrialResult:
    return ranked(all_trials(rounds).values(), rounds[-1].metric)[0]


def trial_folders(rounds: Sequence[SearchRound], settings: Sequence[Hyperparameters]) -> dict[str, Hyperparameters]:
    """The settings by trial folder: the one in which a setting was trained before, or the next free one."""
    known = {trial.setting: trial.folder for trial in all_trials(rounds).values()}
    new = iter(range(len(known), len(known) + len(settings)))
    return {known.get(each) or search_trial_folder(next(new)): each for each in dict.fromkeys(settings)}


def standard_error(accuracy: float, rows: int) -> float:
    """Binomial standard error of an accuracy measured on `rows` images."""
    return math.sqrt(max(accuracy * (1 - accuracy), 0.25 / max(rows, 1)) / max(rows, 1))


def format_metric(value: float, metric: str, rows: int | None = None) -> str:
    """A value of the metric; an accuracy on a known number of rows with its interval."""
    if rows and (told := metric_in_words(value, metric, rows)):
        return told
    return f"{value:.1%}" if metric.endswith("accuracy") else f"{value:.4g}"


def join_numbers(values: Iterable[float]) -> str:
    """`0.1, 0.03 and 0.01`."""
    words = [f"{value:g}" for value in values]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
