"""What a recipe would do, and what each step costs, without doing any of it."""

from __future__ import annotations

from lehr.formatting import count_of
from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe import coarse, initial, overfit, rates
from lehr.recipe.budget import final_reserve
from lehr.recipe.planner import HIGHER, measures_rates, weight_decays
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import rate_test_epochs
from lehr.recipe.steps import StepId, StepName

Row = tuple[str, str, str]
"""(step, what it does, what it costs)."""


def preview(job: RecipeJob) -> list[Row]:
    """The steps of the recipe."""
    first = STEPS.index(job.first_step)
    checks = [
        (
            _title("initial_loss"),
            "loss, inputs, outputs and gradients before any training",
            f"two passes over {initial.ROWS} images",
        ),
        (
            _title("overfit"),
            f"memorise {overfit.BATCHES} batches at the job's learning rate or a usual one",
            f"up to {overfit.STEPS} updates per learning rate, {overfit.MOST_STEPS} if it is nearly there, and at most "
            f"{overfit.SHARE:.0%} of the budget",
        ),
    ][first:]
    rates_row = [(_title("learning_rate"), _rates_in_words(job), _rate_cost(job))] if measures_rates(job) else []
    return [*checks, *rates_row, *_searches(job)]


def _searches(job: RecipeJob) -> list[Row]:
    """Steps 4 to 7."""
    amount = job.budget.epochs
    count = len(job.recipe.learning_rates) or rates.NEIGHBOURS + 1
    if amount is None:
        trials = count * len(weight_decays(job))
        what = f"{trials} coarse trials, rounds around the best, the final training"
        return [("4 to 7", what, "what the time allows, at the speed that step 3 measures")]
    grid = coarse.plan_grid((0.1,) * count, weight_decays(job), amount)
    trials = len(grid.settings)
    return [
        (
            _title("coarse"),
            f"{trials} trials of {count_of(grid.epochs, 'epoch')}",
            count_of(trials * grid.epochs, "epoch"),
        ),
        ("5, 6 Refined search", "rounds around the best setting until nothing improves", "the rest of the budget"),
        (
            _title("last"),
            f"the best setting at {HIGHER:g} times its learning rate, which decays",
            f"{final_reserve(job, RecipeState())} epochs, or more where that pays off",
        ),
    ]


def _title(name: StepName) -> str:
    step = StepId(name)
    return f"{step.number} {step.title}"


def _rates_in_words(job: RecipeJob) -> str:
    grid = rates.rate_grid(job.base)
    if job.recipe.range_test:
        return f"one short training while the learning rate rises from {grid[0]:g} to {10 * grid[-1]:g}"
    span = f"{grid[0]:g} to {grid[-1]:g}"
    return f"{len(grid)} short trainings at learning rates from {span}, more if the best is at an edge"


def _rate_cost(job: RecipeJob) -> str:
    most = rate_test_epochs(job, RecipeState(), job.recipe.range_test)
    epochs = f", or {most:.3g} epochs if that is less" if job.budget.epochs else ""
    return f"{rates.STEPS} updates each{epochs}"
