"""What a recipe does next: a pure function of its job and its results so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from lehr.errors import RunError
from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe import coarse, curve_review, rates, refine
from lehr.recipe.budget import (
    budget_epochs,
    final_reserve,
    is_over,
    is_small,
    over_in_words,
    search_budget,
    small_in_words,
    spent_epochs,
    updates_per_epoch,
)
from lehr.recipe.kept import overfit_trial
from lehr.recipe.measurement import FULL_UPDATES
from lehr.recipe.overrides import head_first
from lehr.recipe.results import round_to_digit
from lehr.recipe.state import RecipeState, round_id
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import (
    NO_TRAINING,
    Hyperparameters,
    TrainingPlan,
    best_trial,
)
from lehr.recipe.verdicts import latest_verdict
from lehr.training.optimizers import has_decay, usual_rate

HIGHER = 2.0  # factor by which a decaying learning rate may start above the best constant one


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes:
        plan: what steps 4, 5 and 7 train.
    """

    id: StepId
    plan: TrainingPlan = NO_TRAINING


@dataclass(frozen=True)
class End:
    """Why there is nothing more to do.

    Attributes:
        status: `stopped`: as the job asks; `failed`: at `step`.
    """

    status: Literal["finished", "stopped", "failed"]
    sentence: str
    step: StepId


def next_step(job: RecipeJob, state: RecipeState) -> Step | End:
    """What the recipe does next.

    Raises:
        RunError: the plan of a begun step is damaged, and a budget of time may make another one now. One of epochs
            makes the same.
    """
    if state.damaged_plan and job.budget.seconds:
        what = "is damaged: it says what the step trains, which under a budget of time nothing else tells"
        raise RunError(f"{state.damaged_plan} {what}; start over with --fresh")
    if latest := latest_verdict(state):
        name = latest.step.name
        if not latest.verdict.good:
            return End("failed", latest.verdict.found, latest.step)
        if state.final:
            return End("finished", latest.verdict.found, latest.step)
        more_rounds = name == "refine" and curve_review.review(state.rounds).continues
        if name == job.recipe.stop_after and not more_rounds:
            return End("stopped", f"Stopped after the step {name} because of recipe.stop_after", latest.step)
    if state.begun:
        return Step(*state.begun)
    if state.rounds:
        return _after_a_round(job, state)
    first = STEPS.index(job.first_step)
    if first <= 0 and not state.initial:
        return Step(StepId("initial_loss"))
    if first <= 1 and not state.overfit:
        return Step(StepId("overfit"))
    if measures_rates(job) and not state.rates and not is_small(job, state):
        return Step(StepId("learning_rate"))
    return _first_round(job, state)


def measures_rates(job: RecipeJob) -> bool:
    """Whether the recipe has a step 3."""
    return STEPS.index(job.first_step) <= 2 and not job.recipe.learning_rates


def learning_rates(job: RecipeJob, state: RecipeState) -> tuple[float, ...]:
    """Of the coarse search: as the job says, as step 3 chose, or from the base job's own downwards."""
    if job.recipe.learning_rates:
        return tuple(dict.fromkeys(job.recipe.learning_rates))
    if state.rates:
        return rates.choose(state.rates).rates
    own = own_rate(job, state)
    return (own, own / 3, own / 10)


def own_rate(job: RecipeJob, state: RecipeState) -> float:
    """Without a step 3: the rate at which step 2 came furthest, or the usual one if it came nowhere."""
    if not state.overfit or not state.overfit.attempts:
        return job.base.optimizer.rate
    return state.overfit.best_rate or usual_rate(job.base.optimizer)


def weight_decays(job: RecipeJob) -> tuple[float, ...]:
    """Of the coarse search; only 0 if the optimizer has no weight decay."""
    return tuple(dict.fromkeys(job.recipe.weight_decays)) if has_decay(job.base.optimizer) else (0.0,)


def final_settings(job: RecipeJob, state: RecipeState, left: int, longer: bool) -> tuple[Hyperparameters, ...]:
    """What is trained in full: the best setting, the same with a higher learning rate, or both.

    A constant learning rate, as in the trials, must be low enough to settle. One that decays settles at its end and
    gains from a higher start. If the epochs `left` are enough for twice the job's epochs each, both are tried; with
    less, a longer training gains more than a second try. A setting that overfits gains nothing from a longer training,
    so there two shorter trainings share what is left.
    """
    best, epochs = best_trial(state.rounds).setting, job.base.train.epochs
    higher = best.model_copy(update={"rate": round_to_digit(HIGHER * best.rate)})
    if left >= (4 if longer else 1) * epochs:
        return best, higher
    return (higher,) if longer and left >= epochs else (best,)


def _first_round(job: RecipeJob, state: RecipeState) -> Step | End:
    """The coarse search; where the budget has no room for one, the final training alone."""
    updates = updates_per_epoch(job, state)
    budget, tried, decays = search_budget(job, state), learning_rates(job, state), weight_decays(job)
    if math.isinf(budget):
        what = f"{job.budget} are too little: no time was left to measure how long an epoch takes"
        if not overfit_trial(state):
            return End("failed", what, StepId("learning_rate"))
        alone = (Hyperparameters(rate=tried[0], decay=decays[0]),)  # what time is left; else step 2 has the best model
        return Step(StepId("last"), TrainingPlan(alone, job.base.train.epochs, f"Left out: {what}."))
    plan = coarse.plan_grid(tried, decays, budget, updates)
    if is_small(job, state) and not job.recipe.learning_rates:
        what = f"Left out, as a search would be: {small_in_words(budget, updates or 1)}."
        if head_first(job.base):
            what += " The pretrained network is fine-tuned, its head first; a section base.finetune decides otherwise."
        plan = replace(NO_TRAINING, left_out=what)
    if is_over(job, state, "coarse"):
        plan = replace(NO_TRAINING, left_out=f"Left out: {over_in_words(job, 'coarse')}.")
    if plan.settings:
        return Step(round_id(0), plan)
    if job.recipe.stop_after in ("coarse", "refine"):
        return End(
            "stopped", f"Stopped before the coarse search because of recipe.stop_after. {plan.left_out}", round_id(0)
        )
    left = int(budget_epochs(job, state) - spent_epochs(state))
    epochs = min(longest_training(job, state, True), left)
    setting = Hyperparameters(rate=tried[0], decay=decays[0])
    return Step(StepId("last"), TrainingPlan((setting,), max(1, epochs), plan.left_out))


def longest_training(job: RecipeJob, state: RecipeState, longer: bool) -> int:
    """Epochs of a final training at most: the job's own, twice as many, or more where an epoch has few updates."""
    updates = updates_per_epoch(job, state) or FULL_UPDATES
    return max(job.base.train.epochs * (1 + longer), math.ceil(FULL_UPDATES / updates))


def _after_a_round(job: RecipeJob, state: RecipeState) -> Step:
    """Another round while the curves ask for one and the budget has room; then the final training."""
    left = budget_epochs(job, state) - spent_epochs(state)
    reviewed = curve_review.review(state.rounds) if len(state.rounds) > 1 else None
    if (not reviewed or reviewed.continues) and not is_over(job, state, "refine"):
        room = left - final_reserve(job, state)
        wanted, longest = (reviewed.settings, reviewed.longest) if reviewed else ((), refine.EPOCHS)
        plan = refine.plan_round(state.rounds, wanted, room, longest)
        if plan.settings:
            return Step(round_id(len(state.rounds)), plan)
    longer = reviewed is None or reviewed.longer_final
    settings = final_settings(job, state, int(left), longer)[: max(1, int(left))]
    epochs = min(longest_training(job, state, longer), int(left) // len(settings))
    return Step(StepId("last"), TrainingPlan(settings, max(1, epochs)))
