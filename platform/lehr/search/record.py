"""`search.json` in a trial's run folder: all that a search knows of the trial, and what a resumed search reads."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from lehr.errors import RunError
from lehr.job import with_new_names
from lehr.runs import RunFolder
from lehr.search.space import Values

FILE = "search.json"
THE_BUDGET = "the budget of"
"""What each reason begins with that is a budget."""


@dataclass(frozen=True)
class EarlyEnd:
    """The search ended a trial before its last epoch.

    Attributes:
        epoch: the last epoch that was trained, from 1.
        reason: why, in words.
    """

    epoch: int
    reason: str

    @property
    def by_budget(self) -> bool:
        """Whether the budget ended it, and not what it had reached: with a larger one it goes on."""
        return self.reason.startswith(THE_BUDGET)


@dataclass(frozen=True)
class BestScore:
    """The score of a trial's best epoch, and its loss on the same rows, which decides between equal scores."""

    score: float
    loss: float | None = None

    def rank(self, sign: float) -> tuple[float, float]:
        """A key that sorts the best first; an unknown loss counts as the highest."""
        return -sign * self.score, math.inf if self.loss is None else self.loss


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        number: from 0.
        values: of the searched fields that apply to this trial, by dotted path.
        scores: the metric after each epoch, as measured.
        ended: when and why the search ended the trial early; None if it did not.
        losses: on the same rows after each epoch, which decide between equal scores; none in older records.
    """

    number: int
    values: Values
    scores: tuple[float, ...] = ()
    ended: EarlyEnd | None = None
    losses: tuple[float, ...] = ()

    @property
    def folder(self) -> str:
        return folder_of(self.number)

    def with_score(self, epoch: int, score: float, loss: float = math.nan) -> TrialRecord:
        """The record after one more epoch (from 1). An epoch that is trained again replaces its old score."""
        unknown = (math.nan,) * (epoch - 1 - len(self.losses))
        return replace(
            self, scores=(*self.scores[: epoch - 1], score), losses=(*self.losses[: epoch - 1], *unknown, loss)
        )

    def best(self, sign: float) -> BestScore | None:
        """The best epoch so far; None before the first finite score. `sign` is −1 where lower scores are better."""
        losses = (*self.losses, *(math.nan,) * (len(self.scores) - len(self.losses)))
        found = [
            BestScore(score, loss if math.isfinite(loss) else None)
            for score, loss in zip(self.scores, losses, strict=True)
            if math.isfinite(score)
        ]
        return min(found, key=lambda each: each.rank(sign), default=None)

    def signed_scores(self, sign: float) -> tuple[float, ...]:
        """The scores turned so that higher is better; NaN and infinity count as the worst."""
        return tuple(sign * score if math.isfinite(score) else -math.inf for score in self.scores)

    @classmethod
    def read(cls, search: RunFolder, number: int) -> TrialRecord:
        """The record of a trial of `search`.

        Raises:
            FileNotFoundError: the trial has no record.
            RunError: the file is damaged.
        """
        folder = search.folder.child(folder_of(number))
        content = folder.read_json(FILE)
        try:
            ended = EarlyEnd(**content["ended"]) if content["ended"] else None
            scores, losses = (tuple(map(float, content.get(name, ()))) for name in ("scores", "losses"))
            return cls(number, with_new_names(content["values"]), scores, ended, losses)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder.uri}/{FILE} is damaged; start over with --fresh") from error

    def write(self, search: RunFolder) -> None:
        content = {
            "values": self.values,
            "scores": list(self.scores),
            "losses": list(self.losses),
            "ended": asdict(self.ended) if self.ended else {},
        }
        search.folder.child(self.folder).write_json(FILE, content)


def folder_of(number: int) -> str:
    """`trials/0007`: the run folder of a trial, inside that of its search."""
    return f"trials/{number:04}"


def number_of(folder: str) -> int:
    """The number of the trial in `trials/0007`."""
    return int(folder.rpartition("/")[2])


def read_records(search: RunFolder) -> dict[int, TrialRecord]:
    """All trials of a search so far, by number. Raises RunError where a record is damaged."""
    trials = search.folder.child("trials")
    numbers = (int(name) for name in trials.folders() if name.isdecimal() and trials.exists(f"{name}/{FILE}"))
    return {number: TrialRecord.read(search, number) for number in sorted(numbers)}
