"""What a recipe does next: a pure function of its job and its results so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe import coarse, curve_review, rates, refine
from lehr.recipe.budget import budget_epochs, final_reserve, spent_epochs
from lehr.recipe.results import round_to_digit
from lehr.recipe.state import RecipeState, round_id
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import NO_TRAINING, Hyperparameters, TrainingPlan, TrialResult, best_trial
from lehr.recipe.verdicts import latest_verdict
from lehr.training.optimizers import has_decay

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
    """What the recipe does next."""
    if latest := latest_verdict(state):
        name = latest.step.name
        if not latest.verdict.good:
            return End("failed", latest.verdict.found, latest.step)
        if state.final:
            return End("finished", latest.verdict.found, latest.step)
        more_rounds = name == "refine" and curve_review.review(state.rounds).continues
        if name == job.recipe.stop_after and not more_rounds:
            return End("stopped", f"Stopped after the step {name} because of recipe.stop_after", latest.step)
    if state.rounds:
        return _after_a_round(job, state)
    first = STEPS.index(job.recipe.start_at)
    if first <= 0 and not state.initial:
        return Step(StepId("initial_loss"))
    if first <= 1 and not state.overfit:
        return Step(StepId("overfit"))
    if measures_rates(job) and not state.rates:
        return Step(StepId("learning_rate"))
    grid = coarse.plan_grid(learning_rates(job, state), weight_decays(job), budget_epochs(job, state))
    return Step(round_id(0), grid)


def measures_rates(job: RecipeJob) -> bool:
    """Whether the recipe has a step 3."""
    return STEPS.index(job.recipe.start_at) <= 2 and not job.recipe.learning_rates


def learning_rates(job: RecipeJob, state: RecipeState) -> tuple[float, ...]:
    """Of the coarse search: as the job says, as step 3 chose, or from the base job's own downwards."""
    if job.recipe.learning_rates:
        return tuple(dict.fromkeys(job.recipe.learning_rates))
    if state.rates:
        return rates.choose(state.rates).rates
    own = job.base.optimizer.rate
    return (own, own / 3, own / 10)


def weight_decays(job: RecipeJob) -> tuple[float, ...]:
    """Of the coarse search; only 0 if the optimizer has no weight decay."""
    return tuple(dict.fromkeys(job.recipe.weight_decays)) if has_decay(job.base.optimizer) else (0.0,)


def kept_trial(state: RecipeState) -> TrialResult:
    """The training whose model the recipe keeps: the best final one if it beats every trial, else the best trial."""
    final = state.final
    return final.trained if final and final.trained.folder == final.kept else best_trial(state.rounds)


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


def _after_a_round(job: RecipeJob, state: RecipeState) -> Step:
    """Another round while the curves ask for one and the budget has room; then the final training."""
    left = budget_epochs(job, state) - spent_epochs(state)
    reviewed = curve_review.review(state.rounds) if len(state.rounds) > 1 else None
    if not reviewed or reviewed.continues:
        room = left - final_reserve(job, state)
        wanted, longest = (reviewed.settings, reviewed.longest) if reviewed else ((), refine.EPOCHS)
        plan = refine.plan_round(state.rounds, wanted, room, longest)
        if plan.settings:
            return Step(round_id(len(state.rounds)), plan)
    longer = reviewed is None or reviewed.longer_final
    settings = final_settings(job, state, int(left), longer)[: max(1, int(left))]
    epochs = min(job.base.train.epochs * (1 + longer), int(left) // len(settings))
    return Step(StepId("last"), TrainingPlan(settings, max(1, epochs)))
