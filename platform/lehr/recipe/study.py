"""The trials of one step as a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from lehr.job.recipe import RecipeJob
from lehr.recipe.budget import UNTIL, budget_epochs, final_reserve, over_in_words, spent_epochs
from lehr.recipe.overview import overview_of
from lehr.recipe.planner import Step
from lehr.recipe.rates import RateTest
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import next_rate_test, trials_of
from lehr.recipe.trial_results import all_trials
from lehr.trials import Clock, Deadline, Each, Outcome, Trial, Work
from lehr.trials.study import StudyProgress


class StepStudy(Each):
    """Trains the trials of a step. Step 3 adds trials as long as the best rate is at the edge of those tested.

    When the time of the step is over, its trials end with what they have, and the rest is left out.
    """

    def __init__(self, job: RecipeJob, state: RecipeState, step: Step, clock: Clock) -> None:
        super().__init__(trials_of(job, state, step))
        self._job, self._state, self._step, self._clock = job, state, step, clock
        self._asked = self._epochs = 0
        self._tested = 0.0  # epochs that the tests of step 3 took
        self._began = clock.seconds
        self._epochs_done |= {folder: each.epochs for folder, each in all_trials(state.rounds).items()}
        self._deadline = deadline_of(job, step, clock)

    def ask(self) -> Trial | None:
        if self._deadline and self._deadline.passed:
            return None
        trial = super().ask()
        if trial is None and self._step.id.name == "learning_rate" and len(self.outcomes) == self._asked:
            trial = next_rate_test(self._job, self._state, list(self.outcomes.values()))
            self.trials += (trial,) if trial else ()
        self._asked += trial is not None
        return replace(trial, deadline=self._deadline) if trial else None

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs += 1
        return super().epoch(trial, row)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps the outcome; outcomes stay in the order of the trials, whichever ends first."""
        super().tell(trial, outcome)
        if self._step.id.name == "learning_rate" and outcome.status == "finished":
            self._tested += RateTest.read(outcome.run.folder).epochs
        self.outcomes = {
            each.folder: self.outcomes[each.folder] for each in self.trials if each.folder in self.outcomes
        }

    @property
    def seconds_per_epoch(self) -> float:
        """Wall time of this attempt divided by the epochs of all trials in it; 0 where there were none."""
        return (self._clock.seconds - self._began) / self._epochs if self._epochs else 0.0

    def progress(self) -> StudyProgress:
        ended, count = len(self.outcomes), len(self.trials)
        state = replace(self._state, seconds=self._clock.seconds)
        overview = overview_of(self._job, state, self._step, ended, count)
        seconds = {"total": state.seconds}
        if self._step.plan.settings:
            return StudyProgress(overview, seconds=seconds, work=self.work())
        return StudyProgress(overview, seconds=seconds, seconds_left=self._seconds_left())

    def work(self) -> Work:
        """What is left to train of this step and, since a recipe uses up its budget, of the steps after it."""
        work, job, state = super().work(), self._job, self._state
        known = all_trials(state.rounds)
        takes = sum(
            each.job.train.epochs - (known[each.folder].epochs if each.folder in known else 0) for each in self.trials
        )
        after = budget_epochs(job, state) - spent_epochs(state) - takes
        deadline = None
        if job.budget.seconds is not None:
            deadline = self._clock.deadline(job.budget.seconds, "")
        if self._step.id.name == "last" or not math.isfinite(after):
            return replace(work, deadline=deadline)
        last = min(max(0.0, after), final_reserve(job, state))
        rounds = max(0.0, after - last)
        count = round(rounds / self._step.plan.epochs)
        later = (rounds / count,) * count if count else ()
        return replace(work, waiting=(*work.waiting, *later, last), deadline=deadline)

    def _seconds_left(self) -> float | None:
        """An estimate before the search: by the clock where the budget is a time, else by the tests of step 3."""
        job, state = self._job, self._state
        limits = [job.budget.seconds - self._clock.seconds] if job.budget.seconds is not None else []
        if job.budget.epochs and self._tested:
            takes = (self._clock.seconds - self._began) / self._tested
            limits.append(takes * (job.budget.epochs - spent_epochs(state) - self._tested))
        return max(0.0, min(limits)) if limits else None


def deadline_of(job: RecipeJob, step: Step, clock: Clock) -> Deadline | None:
    """When the time of a step is over; None if the budget has no limit of time."""
    if job.budget.seconds is None:
        return None
    name = step.id.name
    return clock.deadline(UNTIL[name] * job.budget.seconds, over_in_words(job, name))
