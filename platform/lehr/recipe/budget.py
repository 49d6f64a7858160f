"""The budget of a recipe: how much there is, is spent, and is reserved, in passes over the training images and in time.

Everything that is trained counts, from step 2 on. Step 1 trains nothing. Epochs are never overspent: each step plans
only what fits. Time is never overspent by more than one update and one evaluation: each step has a deadline, at which
its trials end with what they have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lehr.formatting import count_of
from lehr.job.recipe import RecipeJob
from lehr.recipe.measurement import FULL_UPDATES
from lehr.recipe.state import RecipeState
from lehr.recipe.steps import StepName

LEAST_EPOCHS = 4.0  # that a budget must have: for a test of learning rates, one trial and the final training
RATE_SHARE = 0.25  # of what step 2 leaves of a budget, for the first tests of step 3 together at most
MOST_RATE_SHARE = 0.4  # the same with those beyond the edge: the other steps need the rest
FINAL_SHARE = 0.4  # of what step 2 leaves of the budget at most, reserved for the final training
UNTIL: Mapping[StepName, float] = {
    "initial_loss": 0.3,
    "overfit": 0.3,
    "learning_rate": 0.45,
    "coarse": 0.6,
    "refine": 0.7,
    "last": 1.0,
}
"""The share of a budget of time that is used up when a step must end."""


def budget_epochs(job: RecipeJob, state: RecipeState) -> float:
    """The whole budget; what is left of a time is converted at the speed so far. Infinite while that is unknown."""
    limits = [job.budget.epochs or math.inf]
    if job.budget.seconds and (takes := state.seconds_per_epoch):
        limits.append(spent_epochs(state) + max(0.0, job.budget.seconds - state.seconds) / takes)
    return min(limits)


def spent_epochs(state: RecipeState) -> float:
    """What everything took that was trained so far."""
    return checking_epochs(state) + search_epochs(state)


def checking_epochs(state: RecipeState) -> float:
    """What step 2 took."""
    return state.overfit.epochs if state.overfit else 0.0


def search_epochs(state: RecipeState) -> float:
    """What steps 3 to 7 took."""
    total = sum(each.epochs for each in state.rounds) + (state.rates.epochs if state.rates else 0.0)
    return total + (sum(each.epochs for each in (state.final.trained, *state.final.beside)) if state.final else 0)


def search_budget(job: RecipeJob, state: RecipeState) -> float:
    """What step 2 leaves of the budget."""
    return max(0.0, budget_epochs(job, state) - checking_epochs(state))


def final_reserve(job: RecipeJob, state: RecipeState) -> int:
    """Epochs that the search leaves for the final training."""
    return max(1, int(min(2.0 * job.base.train.epochs, FINAL_SHARE * search_budget(job, state))))


def is_over(job: RecipeJob, state: RecipeState, step: StepName) -> bool:
    """Whether the time of a step is over."""
    return job.budget.seconds is not None and state.seconds >= UNTIL[step] * job.budget.seconds


def over_in_words(job: RecipeJob, step: StepName) -> str:
    """Why a step ends when its time is over."""
    whole = f"the budget of {job.budget.minutes:g} minute{'s' * (job.budget.minutes != 1)}"
    return f"{whole} is used up" if UNTIL[step] == 1 else f"{UNTIL[step]:.0%} of {whole} is used up"


def is_small(job: RecipeJob, state: RecipeState) -> bool:
    """Whether the whole budget is less than one training in full needs: then all of it goes into that."""
    updates = updates_per_epoch(job, state)
    return updates is not None and budget_epochs(job, state) * updates < FULL_UPDATES


def small_in_words(epochs: float, updates: int) -> str:
    """Why there is no search where the budget is small: the epochs that it has, of so many updates each."""
    few = count_of(round(epochs * updates), "update")
    return f"the budget has room for {few}, and a training takes {FULL_UPDATES}"


def updates_per_epoch(job: RecipeJob, state: RecipeState) -> int | None:
    """Updates in a pass over the training images; None while their number is unknown."""
    rows = (state.rates.rows if state.rates else 0) or (state.overfit.training_rows if state.overfit else 0)
    return math.ceil(rows / job.base.train.batch_size) if rows else None
