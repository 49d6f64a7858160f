"""How long a recipe still takes: its steps to come, played through, at the speed of those that were done.

Each step starts processes, which takes the same whatever it trains; so steps count beside epochs. How many rounds of
the search there are depends on what they find: the most likely number is as many as the budget has room for, and the
least is one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lehr.job.recipe import RecipeBudget, RecipeJob
from lehr.recipe import coarse, curve_review, rates, refine
from lehr.recipe.budget import budget_epochs, final_reserve, is_small, search_budget, spent_epochs, updates_per_epoch
from lehr.recipe.planner import Step, final_settings, learning_rates, longest_training, weight_decays
from lehr.recipe.state import RecipeState
from lehr.recipe.trial_results import RoundDiagnosis, SearchRound, TrainingPlan, TrialResult, all_trials, trial_folders
from lehr.trials.pace import END_SECONDS, THIRD


@dataclass(frozen=True)
class ToCome:
    """What follows a step: further steps, and the epochs that they train together."""

    steps: int = 0
    epochs: float = 0.0


def to_come(job: RecipeJob, state: RecipeState, step: Step, takes: float, most_rounds: int | None = None) -> ToCome:
    """What follows `step`, which itself still takes `takes` epochs; all that the budget has room for is used.

    Args:
        most_rounds: of the search after the coarse one, those that are done among them; None for no limit.
    """
    whole = budget_epochs(job, state)
    if step.id.name == "last":
        return ToCome()
    left, rounds = whole - spent_epochs(state) - takes, list(state.rounds)
    steps, epochs = 0, 0.0
    if step.plan.settings:
        rounds.append(_pretended(rounds, step.plan))
    elif not is_small(job, state):
        tried = learning_rates(job, state) if state.rates else _likely_rates(job, state)
        plan = coarse.plan_grid(tried, weight_decays(job), search_budget(job, state), updates_per_epoch(job, state))
        if plan.settings:
            rounds.append(_pretended(rounds, plan))
            steps, epochs = steps + 1, epochs + rounds[-1].epochs
    while rounds and len(rounds) <= (curve_review.MOST_ROUNDS if most_rounds is None else most_rounds):
        plan = refine.plan_round(rounds, (), left - epochs - final_reserve(job, state))
        if not plan.settings:
            break
        rounds.append(_pretended(rounds, plan))
        steps, epochs = steps + 1, epochs + rounds[-1].epochs
    room = max(1, int(left - epochs))
    count = 1
    if rounds:
        count = len(final_settings(job, replace(state, rounds=tuple(rounds)), room, True)[:room])
    last = min(longest_training(job, state, True), room // count)
    return ToCome(steps + 1, epochs + count * max(1, last))


def _likely_rates(job: RecipeJob, state: RecipeState) -> tuple[float, ...]:
    """As many rates as step 3 usually leaves, where it is not done yet."""
    own = job.recipe.learning_rates
    return learning_rates(job, state) if own else tuple(rates.rate_grid(job.base)[-1 - rates.NEIGHBOURS :])


def _pretended(rounds: list[SearchRound], plan: TrainingPlan) -> SearchRound:
    """The round that a plan gives if its first setting is the best and nothing fails."""
    known, metric = all_trials(rounds), rounds[-1].metric if rounds else "validation_accuracy"
    sign = next((trial.sign(metric) for trial in known.values()), 1.0)
    best = max((trial.score(metric) for trial in known.values() if math.isfinite(trial.score(metric))), default=0.0)
    trained = tuple(
        TrialResult(
            setting=setting, folder=folder, values=(sign * (best + (not number)),) * plan.epochs, lower=sign < 0
        )
        for number, (folder, setting) in enumerate(trial_folders(rounds, plan.settings).items())
    )
    return SearchRound(
        number=len(rounds),
        metric=metric,
        validation_rows=0,
        common=0.0,
        trained=trained,
        epochs=sum(each.epochs - (known[each.folder].epochs if each.folder in known else 0) for each in trained),
        updates=0,
        best=trained[0].folder,
        diagnosis=RoundDiagnosis(name="none", title="", evidence=""),
        planned=plan.epochs,
    )


@dataclass
class StepTimes:
    """What one step took so far, in seconds since 1970 and epochs.

    Attributes:
        created: when it began. first, until: when training in it began, and the newest epoch or test ended.
        epochs: trained until then, by all its trials together.
    """

    created: float
    first: float = math.inf
    until: float = -math.inf
    epochs: float = 0.0

    def trained(self, began: float, ended: float, epochs: float) -> None:
        """Some epochs that a trial trained from `began` to `ended`."""
        self.first, self.until = min(self.first, began), max(self.until, ended)
        self.epochs += epochs

    @property
    def busy(self) -> float:
        """Seconds in which it trained."""
        return max(0.0, self.until - self.first)


@dataclass
class RecipePace:
    """The times of the steps in this attempt, and what follows from them."""

    clock: Callable[[], float] = time.time
    _steps: list[StepTimes] = field(default_factory=list)
    _around: list[float] = field(default_factory=list)

    def begin(self) -> StepTimes:
        """A step begins, and the one before it has ended."""
        now = self.clock()
        if self._steps and self._steps[-1].epochs:
            self._around.append(max(0.0, now - self._steps[-1].created - self._steps[-1].busy))
        self._steps.append(StepTimes(now))
        return self._steps[-1]

    @property
    def seconds_per_epoch(self) -> float | None:
        """Of all trials together: those side by side share the time. None before the first."""
        epochs = sum(each.epochs for each in self._steps)
        return sum(each.busy for each in self._steps) / epochs if epochs else None

    @property
    def seconds_around(self) -> float:
        """What a step takes beside training: its processes start and end."""
        if self._around:
            return sum(self._around) / len(self._around)
        starts = [each.first - each.created for each in self._steps if each.epochs]
        return max(0.0, starts[-1]) if starts else 0.0

    def left(self, epochs: float, after: ToCome) -> float:
        """Seconds left, if this step still trains `epochs` and `after` follows."""
        per_epoch = self.seconds_per_epoch or 0.0
        now, step = self.clock(), self._steps[-1]
        if step.epochs:
            this = max(0.0, epochs * per_epoch - max(0.0, now - step.until))
        else:
            this = max(0.0, self.seconds_around - (now - step.created)) + epochs * per_epoch
        return this + after.steps * self.seconds_around + after.epochs * per_epoch + END_SECONDS


def estimate(
    pace: RecipePace, job: RecipeJob, state: RecipeState, step: Step, takes: float, left: float
) -> tuple[float | None, tuple[float | None, float | None] | None]:
    """Seconds left of the whole recipe, and from what to what, where that is more than a third apart.

    Args:
        takes: epochs of the whole step. left: those of it to come.
    """
    most = math.inf if job.budget.seconds is None else max(0.0, job.budget.seconds - state.seconds)
    if not (per_epoch := pace.seconds_per_epoch):
        return None, (None, most) if math.isfinite(most) else None
    epochs = min(job.budget.epochs or math.inf, spent_epochs(state) + takes - left + most / per_epoch)
    job = job.model_copy(update={"budget": RecipeBudget(epochs=epochs)})  # a time is told apart, as the most
    likely = pace.left(left, to_come(job, state, step, takes))
    few = pace.left(left, to_come(job, state, step, takes, most_rounds=1))
    low, high = sorted((min(likely, most), min(few, most)))
    return min(likely, most), ((low, high) if high > THIRD * low else None)
