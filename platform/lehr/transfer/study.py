"""The strategies as trials of one run, and what they tell of themselves on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lehr.formatting import format_seconds
from lehr.job.transfer import Strategy
from lehr.trials import Each, Trial


class Strategies(Each):
    """Each strategy trained to its end, on all training images and on fewer of each class.

    Attributes:
        message: what became of the run, if it failed.
    """

    def __init__(self, candidates: Sequence[Strategy], trials: Sequence[Trial], validation_rows: int) -> None:
        super().__init__(trials)
        self.candidates, self.validation_rows = tuple(candidates), validation_rows
        self.message = ""
        self._epochs: dict[str, tuple[int, float | None]] = {}  # by folder: epochs done, and the last accuracy

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs[trial.folder] = (int(row["epoch"]), row.get("validation_accuracy"))
        return None

    def accuracy(self) -> dict[Strategy, float]:
        """The best validation accuracy of each strategy on all training images, of those that ended well."""
        found: dict[Strategy, float] = {}
        for strategy in ("features", "finetune", "scratch"):
            outcome = self.outcomes.get(f"trials/{strategy}")
            if outcome and outcome.status == "finished" and outcome.best is not None:
                found[strategy] = outcome.best
        return found

    def progress(self) -> dict[str, Any]:
        rows, done = [], 0.0
        for trial in self.trials:
            name, outcome = trial.folder.removeprefix("trials/"), self.outcomes.get(trial.folder)
            epochs, last = self._epochs.get(trial.folder, (0, None))
            if outcome:
                done += 1
                ran = outcome.run.progress()
                value = "" if outcome.best is None else f"{outcome.best:.2%}"
                rows.append([name, outcome.status, value, format_seconds(ran.get("seconds", {}).get("total", 0))])
            elif epochs:
                done += epochs / trial.job.train.epochs
                rows.append([name, f"epoch {epochs} of {trial.job.train.epochs}", f"{last or 0:.2%}", ""])
        accuracy = {name: value for name, value in self.accuracy().items() if name in self.candidates}
        best = max(accuracy, key=lambda name: accuracy[name], default=None)
        return {
            "done": done / max(1, len(self.trials)),
            "headline": f"{best} {accuracy[best]:.2%}" if best else "",
            "facts": {"to try": ", ".join(self.candidates)},
            "table": {"columns": ["strategy", "state", "validation accuracy", "time"], "rows": rows},
        }
