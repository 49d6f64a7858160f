"""The trials of one step as a study."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from lehr.job.recipe import RecipeJob
from lehr.recipe.budget import UNTIL, over_in_words
from lehr.recipe.forecast import RecipePace, estimate
from lehr.recipe.overview import overview_of
from lehr.recipe.planner import Step
from lehr.recipe.rates import RateTest
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import next_rate_test, trials_of
from lehr.recipe.trial_results import all_trials
from lehr.trials import Clock, Deadline, Each, Outcome, Trial
from lehr.trials.study import StudyProgress


class StepStudy(Each):
    """Trains the trials of a step. Step 3 adds trials as long as the best rate is at the edge of those tested.

    When the time of the step is over, its trials end with what they have, and the rest is left out.
    """

    def __init__(self, job: RecipeJob, state: RecipeState, step: Step, clock: Clock, pace: RecipePace) -> None:
        super().__init__(trials_of(job, state, step))
        self._job, self._state, self._step, self._clock = job, state, step, clock
        self._asked = self._epochs = 0
        self._tested = 0.0  # epochs that the tests of step 3 took
        self._began = clock.seconds
        self._epochs_done |= {folder: each.epochs for folder, each in all_trials(state.rounds).items()}
        self._deadline = deadline_of(job, step, clock)
        self._pace, self._times = pace, pace.begin()

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
        now = time.time()
        self._times.trained(now - row.get("seconds", 0.0), now, 1.0)
        return super().epoch(trial, row)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps the outcome; outcomes stay in the order of the trials, whichever ends first."""
        super().tell(trial, outcome)
        if self._step.id.name == "learning_rate" and outcome.status == "finished":
            test = RateTest.read(outcome.run.folder)
            self._tested += test.epochs
            if test.began >= self._times.created:  # else an earlier attempt ran it
                self._times.trained(test.began, test.ended, test.epochs)
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
        left, between = self._estimate()
        seconds = {"total": state.seconds}
        return StudyProgress(overview, seconds=seconds, seconds_left=left, seconds_left_range=between)

    def _estimate(self) -> tuple[float | None, tuple[float | None, float | None] | None]:
        """Seconds left of the recipe, and their range."""
        if self._step.plan.settings:
            known = all_trials(self._state.rounds)
            takes: float = sum(
                each.job.train.epochs - (known[each.folder].epochs if each.folder in known else 0)
                for each in self.trials
            )
            done: float = self._epochs
        else:
            done = self._tested
            takes = done / max(1, len(self.outcomes)) * len(self.trials)
        state = replace(self._state, seconds=self._clock.seconds)
        return estimate(self._pace, self._job, state, self._step, takes, max(0.0, takes - done))


def deadline_of(job: RecipeJob, step: Step, clock: Clock) -> Deadline | None:
    """When the time of a step is over; None if the budget has no limit of time."""
    if job.budget.seconds is None:
        return None
    name = step.id.name
    return clock.deadline(UNTIL[name] * job.budget.seconds, over_in_words(job, name))
