"""The trials of one step as a study."""

from __future__ import annotations

from lehr.job.recipe import RecipeJob
from lehr.recipe.overview import overview_of
from lehr.recipe.planner import Step
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import next_rate_test, trials_of
from lehr.trials import Each, Outcome, Trial
from lehr.trials.study import StudyProgress


class StepStudy(Each):
    """Trains the trials of a step. Step 3 adds trials as long as the best rate is at the edge of those tested."""

    def __init__(self, job: RecipeJob, state: RecipeState, step: Step) -> None:
        super().__init__(trials_of(job, state, step))
        self._job, self._state, self._step = job, state, step
        self._asked = 0

    def ask(self) -> Trial | None:
        trial = super().ask()
        if trial is None and self._step.id.name == "learning_rate" and len(self.outcomes) == self._asked:
            trial = next_rate_test(self._job, list(self.outcomes.values()))
            self.trials += (trial,) if trial else ()
        self._asked += trial is not None
        return trial

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps the outcome; outcomes stay in the order of the trials, whichever ends first."""
        super().tell(trial, outcome)
        self.outcomes = {
            each.folder: self.outcomes[each.folder] for each in self.trials if each.folder in self.outcomes
        }

    def progress(self) -> StudyProgress:
        ended, count = len(self.outcomes), len(self.trials)
        return StudyProgress(overview_of(self._job, self._state, self._step, ended, count))
