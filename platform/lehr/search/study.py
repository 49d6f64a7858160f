"""A search as a study of trials: what is tried next, when a trial has shown enough, and what is best so far."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lehr.job.search import SearchJob
from lehr.runs import RunFolder
from lehr.search.record import Record, folder_of, read_records
from lehr.search.rungs import reason_to_end, rungs
from lehr.search.samplers import Told, quasi_random_values, random_values, tpe_values
from lehr.search.space import Space, Values, label
from lehr.trials import Outcome, Trial

TRIALS = 16  # where the job does not say
SHOWN = 8  # rows of the table on the screen
STATES = ("running", "finished", "ended", "failed")


class Search:
    """The study of a search job. What it knows is in its trials' run folders, so it goes on from there."""

    def __init__(self, job: SearchJob, run: RunFolder) -> None:
        self.job, self.run, self.space = job, run, Space(job)
        self.metric, self.epochs = job.base.train.metric, job.base.train.epochs
        self.sign = -1.0 if self.metric.endswith("loss") else 1.0
        self.records = read_records(run)
        self.outcomes: dict[int, Outcome] = {}
        self.combinations = combinations(self.space) if job.method == "grid" else None
        self.most = most_trials(job, self.combinations)
        self._next = 0
        self._before = run.progress().get("seconds", {}).get("total", 0.0)
        self._began = time.monotonic()
        self._trained: set[int] = set()  # the trials that had an epoch in this attempt

    # ── what `run_trials` asks ──────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> Trial | None:
        """The next trial in the order of their numbers; those of an earlier attempt keep their values."""
        number = self._next
        if number >= (self.most or math.inf) or (number not in self.records and self.spent()):
            return None
        self._next += 1
        if number in self.records:
            job, _ = self.space.trial(self.records[number].values, folder_of(number))
        else:
            job, values = self.space.trial(self._choose(number), folder_of(number))
            self.records[number] = Record(number, values)
            self.records[number].write(self.run)
        return Trial(folder_of(number), job)

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        """Keeps what an epoch measured and says whether the trial ends there; asked again, it answers the same."""
        number, epoch = number_of(trial.folder), int(row["epoch"])
        self._trained.add(number)
        record = self.records[number].with_score(epoch, float(row.get(self.metric, math.nan)))
        if not record.ended:
            self.records[number] = record
            reason = self.spent() or reason_to_end(self.job.stopping, self._curves(), number, self.epochs)
            record = replace(record, ended={"epoch": epoch, "reason": reason} if reason and epoch < self.epochs else {})
        self.records[number] = record
        record.write(self.run)
        return str(record.ended["reason"]) if record.ended else None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[number_of(trial.folder)] = outcome

    # ── what it comes to ────────────────────────────────────────────────────────────────────────────────────────────

    def spent(self) -> str | None:
        """Which part of the budget is used up, in words; None while there is some left."""
        budget = self.job.budget
        if budget.epochs is not None and self.epochs_spent >= budget.epochs:
            return f"the budget of {budget.epochs} epochs is spent"
        if budget.minutes is not None and self.seconds >= 60 * budget.minutes:
            return f"the budget of {budget.minutes:g} minutes is spent"
        return None

    def done(self) -> float:
        """The share of the search that is done: of the part of its budget that will be used up first."""
        budget = self.job.budget
        shares = [len(self.outcomes) / self.most if self.most else 0.0]
        shares += [self.epochs_spent / budget.epochs] if budget.epochs else []
        shares += [self.seconds / 60 / budget.minutes] if budget.minutes else []
        return min(1.0, max(shares))

    @property
    def epochs_spent(self) -> int:
        return sum(len(record.scores) for record in self.records.values())

    @property
    def seconds(self) -> float:
        """Wall time of this search, all attempts together."""
        return self._before + time.monotonic() - self._began

    def state(self, number: int) -> str:
        """running, finished, ended or failed."""
        if number not in self.outcomes:
            return "running"
        if self.outcomes[number].status == "failed":
            return "failed"
        return "ended" if self.records[number].ended else "finished"

    def ranking(self) -> list[tuple[int, float]]:
        """(number, best value of the metric) of the trials that did not fail, the best first."""
        best = {
            number: self.sign * max(scores)
            for number, record in self.records.items()
            if self.state(number) != "failed" and (scores := self._scores(record))
        }
        return sorted(best.items(), key=lambda item: (-self.sign * item[1], item[0]))

    def progress(self) -> dict[str, Any]:
        """Best so far, trials per minute, how many ended at each rung, and the top trials."""
        ranking, ended = self.ranking(), len(self.outcomes)
        at = Counter(int(record.ended["epoch"]) for record in self.records.values() if record.ended)
        best = ranking[0] if ranking else None
        facts = {"best": f"{self.shown(best[1])} (trial {best[0]})"} if best else {}
        facts["epochs"] = str(self.epochs_spent)
        minutes, now = (time.monotonic() - self._began) / 60, len(self._trained & set(self.outcomes))
        if now:
            facts["trials/min"] = f"{now / minutes:.1f}"
        if at:
            facts["ended early"] = ", ".join(f"{at[epoch]} at epoch {epoch}" for epoch in sorted(at))
        done = self.done()
        left = self.seconds * (1 - done) / done if done else None
        rows = [self._row(number, value) for number, value in ranking[:SHOWN]]
        return {
            "done": done,
            "headline": f"{ended} of {self.most} trials" if self.most else f"{ended} trials",
            "facts": facts,
            "table": {
                "columns": ["trial", self.metric.replace("_", " "), "epochs", "", *self.space.dimensions],
                "rows": rows,
            },
            "seconds_left": left,
            "seconds": {"total": self.seconds},
            "best": {"metric": self.metric, "value": best[1], "trial": folder_of(best[0])} if best else {},
            "children": dict.fromkeys(STATES, 0) | Counter(map(self.state, range(self._next))),
            "epochs_spent": self.epochs_spent,
            "epochs_saved": sum(self.epochs - len(record.scores) for record in self.records.values() if record.ended),
            "rungs": [
                {
                    "epoch": rung,
                    "reached": sum(len(record.scores) >= rung for record in self.records.values()),
                    "stopped": at[rung],
                }
                for rung in rungs(self.job.stopping, self.epochs)
            ],
            "trials_per_minute": now / minutes if now else None,
        }

    def shown(self, value: float) -> str:
        """A value of the metric as people read it."""
        return f"{value:.2%}" if "accuracy" in self.metric else f"{value:.4f}"

    def _row(self, number: int, value: float) -> list[str]:
        record = self.records[number]
        values = [label(record.values[path]) if path in record.values else "" for path in self.space.dimensions]
        return [str(number), self.shown(value), f"{len(record.scores)}/{self.epochs}", self.state(number), *values]

    def _choose(self, number: int) -> Values:
        seed, method = self.job.seed, self.job.method
        if self.combinations is not None:
            return self.combinations[number]
        if method == "quasi_random":
            return quasi_random_values(self.space, seed, number)
        if method == "random":
            return random_values(self.space, seed, number)
        told = [
            Told(record.values, self.state(other), tuple(self._scores(record)))  # type: ignore[arg-type]
            for other, record in sorted(self.records.items())
        ]
        return tpe_values(self.space, seed, number, told)

    def _scores(self, record: Record) -> list[float]:
        """The metric after each epoch, turned so that higher is better; no number counts as the worst."""
        return [self.sign * score if math.isfinite(score) else -math.inf for score in record.scores]

    def _curves(self) -> dict[int, list[float]]:
        return {number: self._scores(record) for number, record in self.records.items()}


def number_of(folder: str) -> int:
    return int(folder.rpartition("/")[2])


def combinations(space: Space) -> list[Values]:
    """The grid without the combinations that conditions make equal, in order."""
    found: dict[str, Values] = {}
    for values in space.grid():
        active = space.trial(values, "trial")[1]
        found.setdefault(repr(sorted(active.items(), key=lambda item: item[0])), values)
    return list(found.values())


def most_trials(job: SearchJob, grid: list[Values] | None) -> int | None:
    """How many trials the search has at most; None where only epochs or minutes end it.

    Raises:
        JobError: a grid that is larger than the budget.
    """
    budget = job.budget
    if grid is None:
        return budget.trials or (TRIALS if budget.epochs is None and budget.minutes is None else None)
    if budget.trials is not None and len(grid) > budget.trials:
        what = f"the grid has {len(grid)} combinations, more than the budget of {budget.trials} trials"
        raise job.error("budget.trials", f"{what}; take fewer values, or method: random")
    return len(grid)
