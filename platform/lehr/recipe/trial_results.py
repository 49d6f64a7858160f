"""Steps 4 to 7 train settings of the job: what was trained, for how long, and how well it went."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from lehr.curves.findings import as_yaml
from lehr.job import Training
from lehr.recipe.results import Result, steady


class Setting(Result):
    """What a trial changes in the base job.

    Attributes:
        rate: learning rate. decay: weight decay.
        changes: other fields of the job, such as a label smoothing: dotted path, and value as JSON.
    """

    rate: float
    decay: float
    changes: tuple[tuple[str, str], ...] = ()

    def overrides(self) -> dict[str, Any]:
        return {"optimizer.lr": self.rate, "optimizer.weight_decay": self.decay} | {
            path: json.loads(value) for path, value in self.changes
        }

    def trial(self, base: Training, epochs: int) -> dict[str, Any]:
        """Changes to the base job that make a trial of so many epochs, which may go on for more of them later."""
        return {**steady(base), **self.overrides(), "train.epochs": epochs}

    def __str__(self) -> str:
        return ", ".join([f"rate {self.rate:g}", f"weight decay {self.decay:g}", *self.extra])

    @property
    def extra(self) -> list[str]:
        """The other changes, in words."""
        return [f"{path} {as_yaml(json.loads(value))}" for path, value in self.changes]


class Trained(Result):
    """One setting, trained.

    Attributes:
        folder: its run folder inside the recipe's.
        values: the job's metric after each epoch. train: accuracy on clean training images after each epoch.
        failed: why it failed; empty if it did not.
    """

    setting: Setting
    folder: str
    values: tuple[float, ...]
    train: tuple[float, ...] = ()
    failed: str = ""

    @property
    def epochs(self) -> int:
        return len(self.values)

    def best(self, lower: bool) -> float:
        """The best value so far, made so that more is better; minus infinity where there is none."""
        known = [-value if lower else value for value in self.values if math.isfinite(value)]
        return max(known, default=-math.inf)


class Found(Result):
    """What the diagnosis of a run put first."""

    name: str
    title: str
    evidence: str
    overrides: dict[str, Any] = Field(default_factory=dict)


class Round(Result):
    """One round of the search: its settings trained side by side, and the diagnosis of the best of all so far.

    Attributes:
        number: 0 for the coarse search, then 1, 2, ….
        metric: what trials are compared by. validation_rows: images it is measured on. common: share of its most
            frequent class.
        trained: what this round trained, or trained for longer.
        epochs: passes over the training images that this round added. updates: of the best trial.
        best: folder of the best trial of this round and those before it. diagnosis: of its curves.
    """

    number: int
    metric: str
    validation_rows: int
    common: float
    trained: tuple[Trained, ...]
    epochs: int
    updates: int
    best: str
    diagnosis: Found

    @property
    def lower(self) -> bool:
        return self.metric.endswith("_loss")


class Last(Result):
    """The training in full, with a schedule.

    Attributes:
        trained: how the best of them went. kept: folder of the run whose model is kept, this one or the best trial.
        beside: the others, where more than one setting was trained in full.
        schedule: the schedule, in words. value: the metric of the kept model. test: its test accuracy, if there is one.
    """

    trained: Trained
    kept: str
    schedule: str
    value: float
    test: float | None = None
    diagnosis: Found
    beside: tuple[Trained, ...] = ()


def pool(rounds: Iterable[Round]) -> dict[str, Trained]:
    """All that was trained, by folder, each as far as it came."""
    return {trained.folder: trained for each in rounds for trained in each.trained}


def ranked(trained: Iterable[Trained], lower: bool) -> list[Trained]:
    """The best first; those that are equal in the order they were first trained."""
    return sorted(trained, key=lambda each: (-each.best(lower), each.folder))


def best_of(rounds: Sequence[Round]) -> Trained:
    return ranked(pool(rounds).values(), rounds[-1].lower)[0]


def standard_error(accuracy: float, rows: int) -> float:
    """Binomial standard error of an accuracy measured on so many images."""
    return math.sqrt(max(accuracy * (1 - accuracy), 0.25 / max(rows, 1)) / max(rows, 1))


def shown(value: float, metric: str) -> str:
    return f"{value:.1%}" if metric.endswith("accuracy") else f"{value:.4g}"


def number_words(values: Iterable[float]) -> str:
    """`0.1, 0.03 and 0.01`."""
    words = [f"{value:g}" for value in values]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def folders(rounds: Sequence[Round], settings: Sequence[Setting]) -> Mapping[str, Setting]:
    """Each setting's folder: the one it was trained in before, or the next free `trials/0007`."""
    known = {trained.setting: trained.folder for trained in pool(rounds).values()}
    new = iter(range(len(known), len(known) + len(settings)))
    return {known.get(setting) or f"trials/{next(new):04}": setting for setting in dict.fromkeys(settings)}
