"""Trials, their outcomes, and the study that decides about them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lehr.job import TrainJob
from lehr.runs import BestValue, Overview, RunFolder
from lehr.trials.pace import END_SECONDS, Work
from lehr.trials.trainable import Deadline, Trainable, train_trial


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Attributes:
        folder: its run folder, relative to the parent's, such as `trials/0007`.
        job: what it trains.
        trainable: what runs; a function at the top level of a module. By default it trains the job.
        deadline: when it is finished with what it has; None if it has no limit of time.
        goes_on: whether it is trained further where an earlier attempt finished it.
        weight: what one of its epochs takes beside one of the study's other trials, for the estimate of the time left.
    """

    folder: str
    job: TrainJob
    trainable: Trainable = train_trial
    deadline: Deadline | None = None
    goes_on: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `message` says why, and `run` holds what it recorded."""

    status: Literal["finished", "failed"]
    message: str
    run: RunFolder

    @property
    def best(self) -> float | None:
        """The best value of the job's metric; None if no epoch was finished."""
        ended = self.run.outcome()
        return ended.best.value if ended else None


def rows_of(outcomes: Iterable[Outcome]) -> Mapping[str, int]:
    """By split, the rows on which trials of one job were measured; empty before the first of them ended."""
    ended = (outcome.run.outcome() for outcome in outcomes if outcome.status == "finished")
    return next((each.measured_rows for each in ended if each and each.measured_rows), {})


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        overview: its headline, figures and table; an empty headline and empty `children` are filled in from the
            running trials.
        best: the best value so far.
        measured_rows: by split, the rows on which trials are measured.
        seconds: overrides the measured times, such as `total`.
        work: what is left to train, from which the time that is left is estimated; None where nobody knows.
        seconds_left: an estimate of the study's own, which goes before that.
        seconds_left_range: from what to what, where it may be off by more than a third; without an estimate the most.
    """

    overview: Overview = field(default_factory=Overview)
    best: BestValue = field(default_factory=BestValue)
    seconds: Mapping[str, float] = field(default_factory=dict)
    work: Work | None = None
    seconds_left: float | None = None
    seconds_left_range: tuple[float | None, float | None] | None = None
    measured_rows: Mapping[str, int] = field(default_factory=dict)


class Study(Protocol):
    """Decides what to train. Its methods are called one at a time, in the process that runs the job."""

    def ask(self) -> Trial | None:
        """The next trial to train; None if there is none until another one ends, or none at all."""

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        """Receives the metrics of a trial's epoch (`epoch` from 1, `step`, metrics); returning a reason ends the trial.

        A trial that resumes from a checkpoint reports its newest epoch again and must get the same answer.
        """

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Receives the outcome of a trial."""

    def progress(self) -> StudyProgress:
        """How far the study is, for progress.json and the screen."""
        ...


class Each:
    """A study of a fixed list of trials, each trained to the end of its job."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = tuple(trials)
        self.outcomes: dict[str, Outcome] = {}
        self._waiting = list(reversed(self.trials))
        self._epochs_done: dict[str, int] = {}

    def ask(self) -> Trial | None:
        return self._waiting.pop() if self._waiting else None

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs_done[trial.folder] = int(row["epoch"])
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.folder] = outcome

    def progress(self) -> StudyProgress:
        return StudyProgress(Overview(done=len(self.outcomes) / max(1, len(self.trials))), work=self.work())

    def work(self) -> Work:
        """What is left to train."""
        return work_of(self.trials, self._waiting, self.outcomes, self._epochs_done)


def work_of(
    trials: Iterable[Trial], waiting: Sequence[Trial], ended: Container[str], epochs: Mapping[str, int]
) -> Work:
    """What is left of trials that each train to the end of their job.

    Args:
        trials: all of them. waiting: those to come.
        ended: the folders of those that have ended.
        epochs: by folder, the epochs that are done.
    """
    to_come = {trial.folder for trial in waiting}
    running = [trial for trial in trials if trial.folder not in ended and trial.folder not in to_come]
    return Work(
        {each.folder: each.weight * (each.job.train.epochs - epochs.get(each.folder, 0)) for each in running},
        [each.weight * each.job.train.epochs for each in waiting],
        END_SECONDS,
    )
