"""What the steps of a recipe measured and what was made of it: typed, frozen, written as JSON and read back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict

from lehr.data.dataset import Batch
from lehr.data.randomness import key
from lehr.errors import RunError
from lehr.job import Training
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan

FILE = "result.json"


class Result(BaseModel):
    """What a step measured. A resumed recipe reads it back instead of measuring again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def write(self, folder: Folder) -> None:
        """Writes `result.json` into the step's folder."""
        folder.write_json(FILE, self.model_dump())

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """What a step left in its folder.

        Raises:
            FileNotFoundError: it was not finished.
            RunError: what it left cannot be read.
        """
        try:
            return cls.model_validate(folder.read_json(FILE))
        except ValueError as error:
            raise RunError(f"{folder.uri}/{FILE}: is damaged; start over: --fresh") from error


@dataclass(frozen=True)
class Verdict:
    """What a step's result means.

    Attributes:
        good: whether the recipe can go on.
        found: what was found, in sentences; where it cannot go on, first the cause.
        decided: what follows.
    """

    good: bool
    found: str
    decided: str


def bare(base: Training) -> dict[str, Any]:
    """Changes to the base job for a measurement: no regularisation, no augmentation, a rate that stays as it is."""
    return steady(base) | {
        "data.augment": [],
        "data.sampling": "shuffle",
        "loss.label_smoothing": 0.0,
        "loss.class_weights": "none",
        "optimizer.weight_decay": 0.0,
        "train.epochs": 1,
    }


def steady(base: Training) -> dict[str, Any]:
    """Changes to the base job for a trial that may go on later: nothing in it depends on how long it is."""
    return {
        "optimizer.scale_lr": None,
        "schedule": "constant",
        "train.early_stopping": None,
        "train.averaging": None,
        "train.metric": base.train.metric.removeprefix("averaged_"),
        "train.stop_on": ["diverged", "not_learning"],
    }


def sample(plan: Plan, rows: int, group: Group, purpose: str) -> tuple[Batch, int]:
    """This worker's part of some training rows fixed by the seed, without augmentation, and how many all have."""
    train = plan.splits.train
    chosen = train.order(key(plan.job.seed, purpose))[: min(rows, len(train))]
    return train.gather(chosen[group.rank :: group.size]).to(group.device), len(chosen)


def guess(plan: Plan) -> float:
    """The training loss of the best guess that does not look at the image: the entropy of the weighted classes."""
    counts = torch.bincount(plan.splits.train.labels, minlength=plan.task.outputs).double()
    weights = getattr(plan.task, "class_weights", None)
    return entropy((counts if weights is None else counts * weights).tolist())


def entropy(counts: Sequence[float]) -> float:
    """-Σ p ln p of the shares p: the cross entropy of guessing each class as often as it comes."""
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c > 0)


def tidy(value: float) -> float:
    """A number as people write it, with one digit."""
    exponent = math.floor(math.log10(value) + 1e-9)
    return float(f"{value / 10**exponent:.0f}e{exponent}")


def conclude(run: RunFolder, group: Group, result: Result, headline: str, facts: Mapping[str, str]) -> None:
    """Leaves a measurement's result in its run folder, and says there that it is finished. First worker only."""
    if group.first:
        result.write(run.folder)
        tell(run, "finished", headline, facts, 1.0)


def tell(run: RunFolder, status: str, headline: str, facts: Mapping[str, str], done: float) -> None:
    """Writes the progress of a measurement as the screen and `lehr show` read it."""
    run.write_progress(
        {
            "status": status,
            "message": headline,
            "headline": headline,
            "facts": dict(facts),
            "table": {"columns": [], "rows": []},
            "done": done,
            "seconds": {},
            "updated": time.time(),
        }
    )
