"""What is trained: trials, how they ended, and who decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lehr.job import TrainJob
from lehr.runs import BestValue, Overview, RunFolder
from lehr.trials.trainable import Trainable, train_trial


@dataclass(frozen=True)
class Trial:
    """One training among others.

    Attributes:
        folder: its run folder inside that of its parent, such as `trials/0007`.
        job: what it trains.
        work: what is done with the job; a function at the top of a module. By default it is trained to its end.
    """

    folder: str
    job: TrainJob
    work: Trainable = train_trial


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `message` says why; `run` holds everything it recorded."""

    status: Literal["finished", "failed"]
    message: str
    run: RunFolder

    @property
    def best(self) -> float | None:
        """The best value of the job's metric; None where no epoch was finished."""
        ended = self.run.outcome()
        return ended.best.value if ended else None


@dataclass(frozen=True)
class StudyProgress:
    """What a study tells of itself.

    Attributes:
        overview: its headline, figures and table; `children`, and the headline where it is empty, are filled in from
            the trials that run.
        best: the best value so far.
        seconds: replaces what is known of the time, such as `total`.
        seconds_left: an estimate.
    """

    overview: Overview = field(default_factory=Overview)
    best: BestValue = field(default_factory=BestValue)
    seconds: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None


class Study(Protocol):
    """Decides what is trained. Its methods are called one at a time, from the process that runs the job."""

    def ask(self) -> Trial | None:
        """The next trial to train; None when there is none, at least not before another has ended."""

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        """Takes in what an epoch of a trial measured (`epoch` from 1, `step`, metrics); a reason ends the trial.

        A trial that goes on from a checkpoint tells its newest epoch again, and must hear the same.
        """

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Takes in how a trial ended."""

    def progress(self) -> StudyProgress | dict[str, Any]:
        """How far the study is, for progress.json and the screen."""
        ...


class Each:
    """A study of a fixed list of trials, each trained to its end."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = tuple(trials)
        self.outcomes: dict[str, Outcome] = {}
        self._waiting = list(reversed(self.trials))

    def ask(self) -> Trial | None:
        return self._waiting.pop() if self._waiting else None

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.folder] = outcome

    def progress(self) -> StudyProgress | dict[str, Any]:
        return StudyProgress(Overview(done=len(self.outcomes) / max(1, len(self.trials))))
