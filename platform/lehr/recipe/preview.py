"""What a recipe would do, and what each step costs, without doing any of it."""

from __future__ import annotations

from lehr.data.load import OpenedSources, training_rows
from lehr.formatting import count_of
from lehr.job import derive
from lehr.job.recipe import STEPS, RecipeJob
from lehr.job.sources import source_form
from lehr.recipe import coarse, initial, overfit, rates
from lehr.recipe.budget import final_reserve, is_small, small_in_words, updates_per_epoch
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.planner import HIGHER, longest_training, measures_rates, weight_decays
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import rate_test_epochs
from lehr.recipe.steps import StepId, StepName

Row = tuple[str, str, str]
"""(step, what it does, what it costs)."""


def rows_to_train_on(job: RecipeJob) -> int | None:
    """Training images of a recipe; None where only the run can know: those of a function, or not downloaded yet.

    Raises:
        JobError: there are no such data.
    """
    form = source_form(job.base.data.source)
    if form is None or form.needs_ray or form.downloads:
        return None
    base = derive(job.base, {}, parent=job, name="base")
    return training_rows(base, OpenedSources(base))


def preview(job: RecipeJob, rows: int | None = None) -> list[Row]:
    """The steps of the recipe.

    Args:
        rows: training images; None if that is unknown. A budget that is small for them leaves the search out.
    """
    first, state = STEPS.index(job.first_step), RecipeState(overfit=OverfitCheck(training_rows=rows or 0))
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
    if job.budget.epochs and is_small(job, state) and not job.recipe.learning_rates:
        why = small_in_words(job.budget.epochs, updates_per_epoch(job, state) or 1)
        return [*checks, ("3 to 6", f"left out: {why}", "nothing"), _last_alone(job, state)]
    rates_row = [(_title("learning_rate"), _rates_in_words(job), _rate_cost(job))] if measures_rates(job) else []
    return [*checks, *rates_row, *_searches(job, state)]


def _last_alone(job: RecipeJob, state: RecipeState) -> Row:
    """The final training of a recipe that has no search."""
    epochs = min(int(job.budget.epochs or 1), longest_training(job, state, True))
    what = "one training with all that is left of the budget, at the learning rate of step 2"
    return (_title("last"), what, f"up to {count_of(epochs, 'epoch')}")


def _searches(job: RecipeJob, state: RecipeState) -> list[Row]:
    """Steps 4 to 7."""
    amount = job.budget.epochs
    count = len(job.recipe.learning_rates) or rates.NEIGHBOURS + 1
    if amount is None:
        trials = count * len(weight_decays(job))
        what = f"{trials} coarse trials, rounds around the best, the final training"
        return [("4 to 7", what, "what the time allows, at the speed that step 3 measures")]
    grid = coarse.plan_grid((0.1,) * count, weight_decays(job), amount, updates_per_epoch(job, state))
    if not grid.settings:
        why = grid.left_out.removeprefix("Left out: ").split(". ")[0]
        return [("4 to 6", f"left out: {why}", "nothing"), _last_alone(job, state)]
    trials = len(grid.settings)
    return [
        (
            _title("coarse"),
            f"{count_of(trials, 'trial')} of {count_of(grid.epochs, 'epoch')}",
            count_of(trials * grid.epochs, "epoch"),
        ),
        ("5, 6 Refined search", "rounds around the best setting until nothing improves", "the rest of the budget"),
        (
            _title("last"),
            f"the best setting at {HIGHER:g} times its learning rate, which decays",
            f"{count_of(final_reserve(job, state), 'epoch')}, or more where that pays off",
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
