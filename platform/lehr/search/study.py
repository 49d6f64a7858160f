"""A search as a study of trials: which trial comes next, when a trial has shown enough, and which is best so far."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from lehr.formatting import count_of, format_seconds
from lehr.job.search import SearchJob
from lehr.job.training import tie_breaker
from lehr.runs import BestValue, Overview, RunFolder, Table
from lehr.runs.progress import Rung
from lehr.search.combinations import Combinations, count_combinations, grid_combinations, max_trials
from lehr.search.formats import format_metric, format_value, metric_name, short_paths
from lehr.search.record import THE_BUDGET, BestScore, EarlyEnd, TrialRecord, folder_of, number_of, read_records
from lehr.search.rungs import reason_to_end, rungs
from lehr.search.samplers import PastTrial, TrialState
from lehr.search.space import Space, Values
from lehr.search.survival import Survival
from lehr.trials import Clock, Outcome, Trial, Work
from lehr.trials.pace import END_SECONDS
from lehr.trials.study import StudyProgress, rows_of

SHOWN = 8  # rows of the table on the screen
STATES: tuple[TrialState, ...] = ("running", "finished", "ended", "failed")


class SearchStudy:
    """The study of a search job. Its state is in the trials' run folders, so a search that was killed resumes there."""

    def __init__(self, job: SearchJob, run: RunFolder) -> None:
        self.job, self.run, self.space = job, run, Space(job)
        self.metric, self.epochs = job.base.train.metric, job.base.train.epochs
        self.sign = -1.0 if job.base.lower_is_better(self.metric) else 1.0
        self.records = read_records(run)
        self.outcomes: dict[int, Outcome] = {}
        self.combinations = Combinations(self.space)
        for record in self.records.values():
            self.combinations.take(record.values)
        grid = grid_combinations(self.space) if job.method == "grid" else None
        self.max_trials = max_trials(job, grid)
        self.combinations_count = count_combinations(self.space) if grid is None else len(grid)
        self._ending = ""  # why there are no more trials, in words
        self._next = 0
        self.clock = Clock(run)
        minutes = job.budget.minutes
        self.deadline = self.clock.deadline(60 * minutes, used_up(minutes, "minute")) if minutes else None
        self._measured_rows: Mapping[str, int] = {}
        self._trained: set[int] = set()  # the trials that trained an epoch in this attempt
        self._last_seen: dict[int, float] = {}  # when each trial ended its newest epoch, by `time.monotonic`
        self._epoch_seconds: dict[int, float] = {}  # of the newest epoch of each trial

    # ── what `run_trials` asks ──────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> Trial | None:
        """The next trial, in order of number. Trials of an earlier attempt keep their values."""
        number = self._next
        if (values := self._values(number)) is None:
            return None
        self._next, self._ending = number + 1, ""
        goes_on = self._goes_on(number)
        job, applied = self.space.trial(values, folder_of(number))
        if number not in self.records:
            self.records[number] = TrialRecord(number, applied)
            self.records[number].write(self.run)
        return Trial(folder_of(number), job, deadline=self.deadline, goes_on=goes_on)

    def _goes_on(self, number: int) -> bool:
        """Whether a smaller budget than this one ended the trial in an earlier attempt. Its file says so until its next
        epoch, so that it also goes on where this attempt is killed before."""
        record = self.records.get(number)
        if not record or not record.ended or not record.ended.by_budget or self._is_this_budget(record.ended.reason):
            return False
        undone = replace(record, ended=None)
        self.records[number] = undone
        if not self.exhausted_budget(beside=number):
            return True
        self.records[number] = record
        return False

    def _is_this_budget(self, reason: str) -> bool:
        """Whether a reason to end names the budget that this search has now."""
        budget = self.job.budget
        amounts = {"epoch": budget.epochs, "minute": budget.minutes}
        now = [f"{THE_BUDGET} {count_of(amount, unit)} " for unit, amount in amounts.items() if amount is not None]
        return reason.startswith(tuple(now))

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        """Records what an epoch measured and decides whether the trial ends; asked again, it decides the same."""
        number, epoch = number_of(trial.folder), int(row["epoch"])
        self._trained.add(number)
        now = time.monotonic()
        if number in self._last_seen:  # else the trial was being started in between
            self._epoch_seconds[number] = now - self._last_seen[number]
        self._last_seen[number] = now
        score, loss = (float(row.get(name, math.nan)) for name in (self.metric, tie_breaker(self.metric)))
        record = self.records[number].with_score(epoch, score, loss)
        if not record.ended:
            self.records[number] = record
            reason = self.exhausted_budget(beside=number) or reason_to_end(
                self.job.stopping, self._curves(), number, self.epochs
            )
            record = replace(record, ended=EarlyEnd(epoch, reason) if reason and epoch < self.epochs else None)
        self.records[number] = record
        record.write(self.run)
        return record.ended.reason if record.ended else None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        number = number_of(trial.folder)
        self.outcomes[number], record = outcome, self.records[number]
        if self.deadline and outcome.message == self.deadline.reason and not record.ended:
            self.records[number] = replace(record, ended=EarlyEnd(len(record.scores), outcome.message))
            self.records[number].write(self.run)

    # ── how far the search is ───────────────────────────────────────────────────────────────────────────────────────

    def exhausted_budget(self, beside: int) -> str | None:
        """Which part of the budget is used up, in words; None while it has room for one more epoch of a trial.

        Args:
            beside: the number of that trial. The epoch in which each of the others is counts as spent.
        """
        budget = self.job.budget
        running = sum(
            not record.ended and len(record.scores) < self.epochs
            for number, record in self.records.items()
            if number not in self.outcomes and number != beside
        )
        if budget.epochs is not None and self.epochs_spent + running >= budget.epochs:
            return used_up(budget.epochs, "epoch")
        if self.deadline is None:
            return None
        if self.deadline.passed:
            return self.deadline.reason
        takes = self._epoch_seconds.get(beside) or min(self._epoch_seconds.values(), default=0.0)
        if takes > self.deadline.seconds_left:
            what = f"{THE_BUDGET} {count_of(budget.minutes or 0, 'minute')} has no room for another epoch"
            return f"{what}, which takes about {format_seconds(takes)}"
        return None

    @property
    def ending(self) -> str:
        """Why there are no more trials, in words; of combinations that the budget cut short, that it did."""
        cut = [record for record in self.records.values() if record.ended and record.ended.by_budget]
        if not cut or self._ending != all_tried(count := self.combinations_count or 0):
            return self._ending
        reason, none = cut[-1].ended.reason if cut[-1].ended else "", sum(not record.scores for record in cut)
        if count == 1:
            return f"the only combination {'finished no epoch' if none else 'was cut short'}: {reason}"
        if none:
            return f"{none} of all {count} combinations finished no epoch: {reason}"
        return f"{self._ending}, {len(cut)} of them cut short: {reason}"

    @property
    def share_done(self) -> float:
        """0 to 1: the used share of that part of the budget that will run out first."""
        budget = self.job.budget
        shares = [len(self.outcomes) / self.max_trials if self.max_trials else 0.0]
        shares += [self.epochs_spent / budget.epochs] if budget.epochs else []
        shares += [self.seconds / 60 / budget.minutes] if budget.minutes else []
        return min(1.0, max(shares))

    @property
    def epochs_spent(self) -> int:
        return sum(len(record.scores) for record in self.records.values())

    @property
    def seconds(self) -> float:
        """Wall time of this search, all attempts together."""
        return self.clock.seconds

    def state(self, number: int) -> TrialState:
        if number not in self.outcomes:
            return "running"
        if self.outcomes[number].status == "failed":
            return "failed"
        return "ended" if self.records[number].ended else "finished"

    def ranking(self) -> list[tuple[int, BestScore]]:
        """(number, best epoch) of the trials that did not fail, the best first; of equals that of the lower loss."""
        best = {
            number: record.best(self.sign) or BestScore(-self.sign * math.inf)
            for number, record in self.records.items()
            if self.state(number) != "failed" and record.scores
        }
        return sorted(best.items(), key=lambda item: (item[1].rank(self.sign), item[0]))

    def progress(self) -> StudyProgress:
        """The best so far, the speed, how many trials ended at each rung, and the top trials."""
        ranking, count, share = self.ranking(), len(self.outcomes), self.share_done
        states = Counter(map(self.state, range(self._next)))
        overview = Overview(
            headline=f"{count} of {self.max_trials} trials" if self.max_trials else f"{count} trials",
            done=share,
            facts=self._facts(ranking),
            table=Table(
                columns=("trial", metric_name(self.metric), "epochs", "", *short_paths([*self.space.dimensions])),
                rows=tuple(self._row(number, found.score) for number, found in ranking[:SHOWN]),
            ),
            children={state: states[state] for state in STATES},
            epochs_spent=self.epochs_spent,
            epochs_saved=sum(self.epochs - len(record.scores) for record in self.records.values() if record.ended),
            rungs=tuple(self._rung(epoch) for epoch in rungs(self.job.stopping, self.epochs)),
            trials_per_minute=self.trials_per_minute,
        )
        best = BestValue()
        if ranking:
            number, found = ranking[0]
            best = BestValue(self.metric, found.score, trial=folder_of(number), loss=found.loss)
        return StudyProgress(overview, best, {"total": self.seconds}, self.work(), measured_rows=self.measured_rows)

    def work(self) -> Work:
        """What is expected to be left to train: of trials that may end early, as many epochs as others got to."""
        survival = Survival.of(self.job.stopping, self.epochs, self.records.values())
        running = {
            folder_of(number): 0.0 if record.ended else survival.epochs_left(len(record.scores))
            for number, record in self.records.items()
            if number < self._next and number not in self.outcomes
        }
        each, budget = survival.epochs_left(0), self.job.budget.epochs
        count = math.inf if self.max_trials is None else max(0, self.max_trials - self._next)
        if budget is not None:
            count = min(count, math.ceil(max(0.0, budget - self.epochs_spent - sum(running.values())) / each))
        waiting = (math.inf,) if math.isinf(count) else (each,) * int(count)
        return Work(running, waiting, END_SECONDS, self.deadline)

    @property
    def measured_rows(self) -> Mapping[str, int]:
        """By split, the rows on which trials are measured; empty before the first one ended."""
        if not self._measured_rows:
            self._measured_rows = rows_of(self.outcomes.values())
        return self._measured_rows

    @property
    def trials_per_minute(self) -> float | None:
        """Of this attempt; None before its first trial ended."""
        ended = len(self._trained & set(self.outcomes))
        return 60 * ended / self.clock.seconds_here if ended else None

    def _facts(self, ranking: list[tuple[int, BestScore]]) -> dict[str, str]:
        facts = {}
        if ranking:
            number, found = ranking[0]
            facts["best"] = f"{format_metric(found.score, self.metric, self.measured_rows)} (trial {number})"
        facts["epochs"] = str(self.epochs_spent)
        if speed := self.trials_per_minute:
            facts["trials/min"] = f"{speed:.1f}"
        if ended := self._ended_at():
            facts["ended early"] = ", ".join(f"{ended[epoch]} at epoch {epoch}" for epoch in sorted(ended))
        return facts

    def _ended_at(self) -> Counter[int]:
        """How many trials were ended early, by epoch."""
        return Counter(record.ended.epoch for record in self.records.values() if record.ended and record.scores)

    def _rung(self, epoch: int) -> Rung:
        reached = sum(len(record.scores) >= epoch for record in self.records.values())
        return Rung(epoch, reached, stopped=self._ended_at()[epoch])

    def _row(self, number: int, value: float) -> tuple[str, ...]:
        record, state = self.records[number], self.state(number)
        values = [format_value(record.values[path]) if path in record.values else "" for path in self.space.dimensions]
        told = format_metric(value, self.metric, self.measured_rows)
        return (str(number), told, f"{len(record.scores)}/{self.epochs}", state, *values)

    def _values(self, number: int) -> Values | None:
        """The values of a trial; None where there is no such trial, and `_ending` says why."""
        if self.combinations_count is not None and number >= self.combinations_count:
            self._ending = all_tried(self.combinations_count)
        elif number >= (self.max_trials or math.inf):
            self._ending = used_up(self.max_trials or 0, "trial")
        elif number in self.records:
            return self.records[number].values
        elif reason := self.exhausted_budget(beside=number):
            self._ending = reason
        elif values := self.combinations.next(number, self._past()):
            return values
        else:
            self.combinations_count = number
            self._ending = all_tried(number)
        return None

    def _past(self) -> list[PastTrial]:
        """What tpe knows of earlier trials."""
        return [
            PastTrial(record.values, self.state(other), record.signed_scores(self.sign))
            for other, record in sorted(self.records.items())
        ]

    def _curves(self) -> dict[int, tuple[float, ...]]:
        return {number: record.signed_scores(self.sign) for number, record in self.records.items()}


def used_up(number: float, unit: str) -> str:
    """That a part of the budget is."""
    return f"{THE_BUDGET} {count_of(number, unit)} is used up"


def all_tried(count: int) -> str:
    """That a finite space has no more combinations."""
    return f"all {count} combinations were tried" if count > 1 else "the only combination was tried"
