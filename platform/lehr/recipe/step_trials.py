"""The trials of which the steps of a recipe are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lehr.job import TrainJob, derive
from lehr.job.recipe import RecipeJob
from lehr.recipe import overrides, rates
from lehr.recipe.initial import check_initial_loss
from lehr.recipe.overfit import overfit_sample
from lehr.recipe.planner import Step, weight_decays
from lehr.recipe.rates import RateTest, run_range_test, run_rate_test
from lehr.recipe.state import RecipeState
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import Hyperparameters, trial_folders
from lehr.trials import Outcome, Trial

RATE_SHARE = 0.25  # share of a budget in epochs that step 3 takes at most


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
        return [Trial(folder, _derive(job, folder, overrides.unregularised(base)), overfit_sample)]
    if name == "learning_rate":
        grid = rates.rate_grid(base)
        return [rate_test(job, number, rate) for number, rate in enumerate(grid[-1:] if is_range_test(job) else grid)]
    if name == "last":
        return [
            Trial(folder, _derive(job, folder, overrides.final_training(base, setting, step.plan.epochs)))
            for folder, setting in final_folders(step).items()
        ]
    return [
        Trial(folder, _derive(job, folder, overrides.search_trial(base, setting, step.plan.epochs)))
        for folder, setting in sorted(trial_folders(state.rounds, step.plan.settings).items())
    ]


def final_folders(step: Step) -> dict[str, Hyperparameters]:
    """The settings of the final training, by the folder of each."""
    return {step.id.trial_folder(number): setting for number, setting in enumerate(step.plan.settings)}


def is_range_test(job: RecipeJob) -> bool:
    """Whether step 3 is one range test, not a test at each learning rate."""
    return job.recipe.range_test


def rate_test(job: RecipeJob, number: int, rate: float) -> Trial:
    """A short training at one learning rate, or a range test up to ten times the rate."""
    ranges = is_range_test(job)
    folder = StepId("learning_rate").trial_folder(number)
    changes = {
        **overrides.constant_rate(job.base),
        "optimizer.lr": 10 * rate if ranges else rate,
        "train.epochs": rate_test_epochs(job),
        **({"optimizer.weight_decay": rates.WEIGHT_DECAY} if max(weight_decays(job)) > 0 else {}),
    }
    return Trial(folder, _derive(job, folder, changes), run_range_test if ranges else run_rate_test)


def rate_test_epochs(job: RecipeJob) -> int:
    """Epochs of a test of one learning rate at most; `rates.STEPS` if they are unlimited."""
    amount, unit = job.allowance
    return rates.STEPS if unit == "s" else max(1, int(RATE_SHARE * amount / len(rates.rate_grid(job.base))))


def next_rate_test(job: RecipeJob, outcomes: Sequence[Outcome]) -> Trial | None:
    """One more test, if the lowest loss is at the edge of the rates tested so far."""
    tests = [RateTest.read(outcome.run.folder) for outcome in outcomes if outcome.status == "finished"]
    rate = rates.rate_beyond_edge(tests)
    return None if rate is None else rate_test(job, len(outcomes), rate)


def _derive(job: RecipeJob, folder: str, changes: Mapping[str, Any]) -> TrainJob:
    return derive(job.base, changes, parent=job, name=folder)
