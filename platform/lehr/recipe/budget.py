"""The budget of a recipe, in passes over the training images: how much there is, is spent, and is reserved."""

from __future__ import annotations

import math

from lehr.job.recipe import RecipeJob
from lehr.recipe.state import RecipeState

LEAST_EPOCHS = 4.0  # that a budget must have: for a test of learning rates, one trial and the final training
FINAL_SHARE = 0.4  # of the budget at most, reserved for the final training


def budget_epochs(job: RecipeJob, state: RecipeState) -> float:
    """The whole budget; a time is converted at the speed that step 3 measured.

    Raises:
        JobError: the budget is a time, and step 3 is left out.
    """
    amount, unit = job.allowance
    if unit == "ep":
        return amount
    if not state.rates:
        what = f"{job.budget} is a time, but no step 3 measures how long an epoch takes"
        raise job.error("budget", f"{what}; allowed: a number of epochs, such as 60ep")
    test = state.rates.tests[0]
    return amount / max(1e-9, state.rates.seconds_per_step * math.ceil(test.rows / test.batch))


def spent_epochs(state: RecipeState) -> float:
    """What steps 3 to 7 took so far; the first two steps, which see only a few hundred images, do not count."""
    total = sum(each.epochs for each in state.rounds) + (state.rates.epochs if state.rates else 0.0)
    return total + (sum(each.epochs for each in (state.final.trained, *state.final.beside)) if state.final else 0)


def final_reserve(job: RecipeJob, state: RecipeState) -> int:
    """Epochs that the search leaves for the final training."""
    return max(1, min(2 * job.base.train.epochs, int(FINAL_SHARE * budget_epochs(job, state))))
