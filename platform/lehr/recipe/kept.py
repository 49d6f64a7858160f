"""Whose model a recipe keeps: of all that any step trained, the best on the same validation rows."""

from __future__ import annotations

import math

from lehr.recipe.state import RecipeState
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import Hyperparameters, TrialResult, all_trials, best_trial


def kept_trial(state: RecipeState) -> TrialResult:
    """The training whose model the recipe keeps: of all that any step trained, the best on the validation rows."""
    if state.final:
        return next(each for each in candidates(state) if each.folder == state.final.kept)
    return best_trial(state.rounds)


def candidates(state: RecipeState) -> list[TrialResult]:
    """All that may be kept: the final training, the trials of the search, and what step 2 trained."""
    final = [state.final.trained, *state.final.beside] if state.final else []
    return [*final, *all_trials(state.rounds).values(), *overfit_trial(state)]


def overfit_trial(state: RecipeState) -> list[TrialResult]:
    """What step 2 trained, as a trial; none if it left no network."""
    found = state.overfit
    if not found or not math.isfinite(found.value):
        return []
    setting = Hyperparameters(rate=found.last.rate, decay=0.0)
    folder = StepId("overfit").trial_folder()
    return [TrialResult(setting=setting, folder=folder, values=(found.value,), lower=found.lower)]


def rows_of(state: RecipeState) -> int:
    """Validation images on which everything of a recipe is measured; 0 where that is not known."""
    known = [each.validation_rows for each in (state.final, *reversed(state.rounds), state.overfit) if each]
    return next(filter(None, known), 0)


def common_of(state: RecipeState) -> float:
    """The share of the most frequent class among them; NaN where that is not known."""
    known = [each.common for each in (state.final, *reversed(state.rounds), state.overfit) if each]
    return next(filter(math.isfinite, known), math.nan)


def metric_of(state: RecipeState) -> str:
    """By which the trainings of a recipe are compared, once there is one."""
    return state.rounds[-1].metric if state.rounds or not state.final else state.final.metric
