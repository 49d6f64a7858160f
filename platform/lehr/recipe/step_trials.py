"""The trials of which the steps of a recipe are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lehr.job import TrainJob, derive
from lehr.job.recipe import RecipeJob
from lehr.recipe import overrides, rates
from lehr.recipe.budget import MOST_RATE_SHARE, RATE_SHARE, budget_epochs, search_budget
from lehr.recipe.initial import check_initial_loss
from lehr.recipe.overfit import overfit_sample
from lehr.recipe.planner import Step, weight_decays
from lehr.recipe.rates import RateTest, run_range_test, run_rate_test
from lehr.recipe.state import RecipeState
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import Hyperparameters, trial_folders
from lehr.trials import Outcome, Trial


def trials_of(job: RecipeJob, state: RecipeState, step: Step) -> list[Trial]:
    """The trials of a step; step 3 may add to them (`next_rate_test`).

    Raises:
        JobError: the base job cannot be changed as the step needs it.
    """
    name, base = step.id.name, job.base
    if name == "initial_loss":
        folder = step.id.trial_folder()
        return [Trial(folder, _derive(job, folder, overrides.unregularised(base)), check_initial_loss)]
    if name == "overfit":
        folder = step.id.trial_folder()
        most = partial(overfit_sample, budget=budget_epochs(job, state))
        return [Trial(folder, _derive(job, folder, overrides.unregularised(base)), most)]
    if name == "learning_rate":
        grid, ranges = rates.rate_grid(base), job.recipe.range_test
        return [
            rate_test(job, state, number, rate, ranges) for number, rate in enumerate(grid[-1:] if ranges else grid)
        ]
    if name == "last":
        few, epochs = bool(step.plan.left_out), step.plan.epochs
        return [
            Trial(folder, _derive(job, folder, overrides.final_training(base, setting, epochs, few)))
            for folder, setting in final_folders(step).items()
        ]
    return [
        Trial(folder, _derive(job, folder, overrides.search_trial(base, setting, step.plan.epochs)))
        for folder, setting in sorted(trial_folders(state.rounds, step.plan.settings).items())
    ]


def final_folders(step: Step) -> dict[str, Hyperparameters]:
    """The settings of the final training, by the folder of each."""
    return {step.id.trial_folder(number): setting for number, setting in enumerate(step.plan.settings)}


def rate_test(job: RecipeJob, state: RecipeState, number: int, rate: float, ranges: bool) -> Trial:
    """A short training at one learning rate, or a range test up to ten times the rate."""
    folder, epochs = StepId("learning_rate").trial_folder(number), rate_test_epochs(job, state, ranges)
    changes = {
        **overrides.constant_rate(job.base),
        "optimizer.lr": 10 * rate if ranges else rate,
        "train.epochs": max(1, math.ceil(epochs)) if math.isfinite(epochs) else rates.STEPS,
        **({"optimizer.weight_decay": rates.WEIGHT_DECAY} if max(weight_decays(job)) > 0 else {}),
    }
    test = run_range_test if ranges else run_rate_test
    return Trial(folder, _derive(job, folder, changes), partial(test, epochs=epochs))


def rate_test_epochs(job: RecipeJob, state: RecipeState, ranges: bool) -> float:
    """Epochs of a test of one learning rate, or of a range test, at most; unlimited if the budget is a time."""
    return RATE_SHARE * search_budget(job, state) / (1 if ranges else len(rates.rate_grid(job.base)))


def next_rate_test(job: RecipeJob, state: RecipeState, outcomes: Sequence[Outcome]) -> Trial | None:
    """One more test, if the lowest loss is at the edge of the rates tested so far and the budget has room.

    Where it has no room for a test of each rate, a range test over all of them takes its place.
    """
    found = [RateTest.read(outcome.run.folder) for outcome in outcomes if outcome.status == "finished"]
    grid, tests = rates.rate_grid(job.base), [test for test in found if test.rates]
    if found and not tests:
        tried = job.recipe.range_test or len(outcomes) > len(grid)
        return None if tried else rate_test(job, state, len(outcomes), grid[-1], True)
    next_takes = min(rate_test_epochs(job, state, False), max((test.epochs for test in tests), default=0.0))
    rate = rates.rate_beyond_edge(tests)
    if rate is None or sum(test.epochs for test in tests) + next_takes > MOST_RATE_SHARE * search_budget(job, state):
        return None
    return rate_test(job, state, len(outcomes), rate, False)


def _derive(job: RecipeJob, folder: str, changes: Mapping[str, Any]) -> TrainJob:
    return derive(job.base, changes, parent=job, name=folder)
