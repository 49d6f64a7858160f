"""`search.json` of the trial `features`: the heads that were tried, and how each scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lehr.errors import RunError
from lehr.runs import Folder
from lehr.transfer.head_search import HeadSearch, Judge

FILE = "search.json"


@dataclass(frozen=True)
class HeadScore:
    """One head: its hyperparameters, and the metric and loss it was compared by."""

    learning_rate: float
    weight_decay: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class HeadScores:
    """All heads of a search.

    Attributes:
        scored_on: the images that the scores were measured on, in words.
        tried: in the order of the grid.
        seconds: time spent on `features` and on the `head`.
    """

    scored_on: str
    tried: tuple[HeadScore, ...]
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, search: HeadSearch, by: Judge, seconds: Mapping[str, float]) -> Self:
        """The scores of a search that compared heads by a metric."""
        pairs = zip(search.grid, search.scores, strict=True)
        tried = (
            HeadScore(rate, decay, {by.metric: -score if by.lower else score, "loss": -minus_loss})
            for (rate, decay), (score, minus_loss) in pairs
        )
        return cls(search.scored_on, tuple(tried), seconds)

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """Reads search.json. Raises RunError if it is missing or damaged."""
        try:
            content = folder.read_json(FILE)
            tried = tuple(_score(dict(each)) for each in content["tried"])
            return cls(content["by"], tried, content["seconds"])
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder.uri}/{FILE}: missing or damaged") from error

    def write(self, folder: Folder) -> None:
        """Replaces search.json."""
        tried = [
            {"learning_rate": each.learning_rate, "weight_decay": each.weight_decay, **each.metrics}
            for each in self.tried
        ]
        folder.write_json(FILE, {"by": self.scored_on, "tried": tried, "seconds": dict(self.seconds)})


def _score(fields: dict[str, Any]) -> HeadScore:
    return HeadScore(fields.pop("learning_rate"), fields.pop("weight_decay"), fields)
