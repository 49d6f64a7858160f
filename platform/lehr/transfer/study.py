"""The study of a transfer: its strategies as trials, and its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean

from lehr.formatting import format_seconds
from lehr.intervals import in_words
from lehr.job.transfer import STRATEGIES, Strategy
from lehr.runs import Folder, Overview, Progress, Table
from lehr.transfer.results import accuracy_of
from lehr.trials import Each, StudyProgress, Trial, Work


class TransferStudy(Each):
    """Trains each strategy to its end, on all training images and on fewer of each class.

    Attributes:
        candidates: the strategies to choose from.
        rows: the number of validation images.
        parent: the run's folder, in which trials without epochs tell how long they still take.
    """

    def __init__(
        self, candidates: Sequence[Strategy], trials: Sequence[Trial], rows: int = 0, parent: Folder | None = None
    ) -> None:
        super().__init__(trials)
        self.parent = parent
        self.candidates, self.rows = tuple(candidates), rows
        self._accuracy: dict[str, float | None] = {}  # by folder: the last one

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._accuracy[trial.folder] = row.get("validation_accuracy")
        return super().epoch(trial, row)

    def accuracy(self) -> dict[Strategy, float]:
        """The best validation accuracy of each strategy that finished, trained on all training images."""
        found: dict[Strategy, float] = {}
        for strategy in STRATEGIES:
            outcome = self.outcomes.get(f"trials/{strategy}")
            if outcome and outcome.status == "finished" and (value := accuracy_of(outcome.run)) is not None:
                found[strategy] = value
        return found

    def progress(self) -> StudyProgress:
        accuracy = {name: value for name, value in self.accuracy().items() if name in self.candidates}
        best = max(accuracy, key=lambda name: accuracy[name], default=None)
        rows = [row for trial in self.trials if (row := self._table_row(trial))]
        now = ", ".join(said for trial in self.trials if (said := self._under_way(trial)))
        told = f"{best} {in_words(accuracy[best], self.rows)}" if best else ""
        return StudyProgress(
            Overview(
                headline="; ".join(filter(None, (told, now))),
                done=sum(map(self._share_done, self.trials)) / max(1, len(self.trials)),
                facts={"candidates": ", ".join(self.candidates)},
                table=Table(("strategy", "state", "validation accuracy", "time"), tuple(rows)),
            ),
            work=self.work(),
        )

    def work(self) -> Work:
        """What is left to train; heads on features tell themselves how long they take."""
        work = super().work()
        told: dict[str, float] = {}
        whole: list[float] = []  # what a head takes from its start to its end
        for trial in self.trials:
            if not self.parent or trial.weight or trial in self._waiting:
                continue
            progress = Progress.read(self.parent.child(trial.folder))
            if trial.folder in work.running and progress.seconds_left is not None:
                told[trial.folder] = progress.seconds_left
            if trial.folder in self.outcomes or trial.folder in told:
                whole.append(progress.seconds.get("total", 0.0) + told.get(trial.folder, 0.0))
        heads = sum(not trial.weight for trial in self._waiting)
        waiting = [trial.weight * trial.job.train.epochs for trial in self._waiting if trial.weight]
        return replace(work, told=told, waiting=waiting, waiting_seconds=(mean(whole),) * heads if whole else ())

    def _under_way(self, trial: Trial) -> str:
        """How far a trial is that is being trained: `finetune 3 of 20 epochs`; empty for any other."""
        epochs = 0 if trial.folder in self.outcomes else self._epochs_done.get(trial.folder, 0)
        name = trial.folder.removeprefix("trials/")
        return f"{name} {epochs} of {trial.job.train.epochs} epochs" if epochs else ""

    def _share_done(self, trial: Trial) -> float:
        """Share of a trial that is done, 0 to 1."""
        if trial.folder in self.outcomes:
            return 1.0
        return self._epochs_done.get(trial.folder, 0) / trial.job.train.epochs

    def _table_row(self, trial: Trial) -> tuple[str, ...] | None:
        """What is shown of a trial that has begun."""
        name, outcome = trial.folder.removeprefix("trials/"), self.outcomes.get(trial.folder)
        if outcome:
            value = accuracy_of(outcome.run)
            accuracy = "" if value is None else in_words(value, self.rows)
            seconds = outcome.run.progress().seconds.get("total", 0.0)
            return name, outcome.status, accuracy, format_seconds(seconds)
        epochs, last = self._epochs_done.get(trial.folder, 0), self._accuracy.get(trial.folder)
        return (name, f"epoch {epochs} of {trial.job.train.epochs}", f"{last or 0:.2%}", "") if epochs else None
