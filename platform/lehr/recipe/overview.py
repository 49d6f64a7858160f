"""How far a recipe is, for the screen and `lehr status`."""

from __future__ import annotations

import math

from lehr.formatting import format_seconds
from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe.budget import budget_epochs, spent_epochs
from lehr.recipe.kept import kept_trial, metric_of, rows_of
from lehr.recipe.planner import Step
from lehr.recipe.state import RecipeState
from lehr.recipe.steps import STEP_COUNT
from lehr.recipe.trial_results import all_trials, ranked
from lehr.runs import Overview, Table
from lehr.tasks.forms import spoken_in_full


def overview_of(job: RecipeJob, state: RecipeState, step: Step, ended: int, trials: int) -> Overview:
    """The overview during a step of which `ended` of `trials` trials have ended."""
    several = f": {ended} of {trials} trials" if trials > 1 else ""
    return Overview(
        headline=f"step {step.id.number} of {STEP_COUNT}, {step.id.title.lower()}{several}",
        done=share_done(job, state, step, ended / max(1, trials)),
        facts=facts(job, state),
        table=table(state),
        recipe_step=step.id.name,
    )


def facts(job: RecipeJob, state: RecipeState) -> dict[str, str]:
    """The best result so far, and the budget."""
    found = {}
    if state.rounds or state.final:
        best, metric = kept_trial(state), metric_of(state)
        if math.isfinite(best.score(metric)):
            told = best.format_best(metric, rows_of(state))
            found["best" if state.final else "best so far"] = f"{told} ({best.setting})"
    found["spent"] = spent_in_words(job, state)
    return found


def spent_in_words(job: RecipeJob, state: RecipeState) -> str:
    """`57 of 60 epochs, 3 min 10 s of 20 min`: what the recipe took of each limit that it has."""
    spent = spent_epochs(state)
    epochs = f"{spent:.0f} of {job.budget.epochs:g} epochs" if job.budget.epochs else f"{spent:.0f} epochs"
    limit = job.budget.seconds
    return f"{epochs}, {format_seconds(state.seconds)} of {format_seconds(limit)}" if limit else epochs


def table(state: RecipeState) -> Table:
    """The trials so far, the best first."""
    if not state.rounds:
        return Table()
    metric = state.rounds[-1].metric
    return Table(
        columns=("trial", spoken_in_full(metric), "epochs", "hyperparameters"),
        rows=tuple(
            (trial.folder, trial.format_outcome(metric, rows_of(state)), str(trial.epochs), str(trial.setting))
            for trial in ranked(all_trials(state.rounds).values(), metric)
        ),
    )


def share_done(job: RecipeJob, state: RecipeState, step: Step, share: float) -> float:
    """Roughly how much of the recipe is done, 0 to 1, when `share` of the step is: by epochs once they are known."""
    if not (state.rounds or step.plan.epochs):
        return (STEPS.index(step.id.name) + share) / 20
    adds = step.plan.epochs * len(step.plan.settings)
    shares = [(spent_epochs(state) + share * adds) / max(1e-9, budget_epochs(job, state))]
    shares += [state.seconds / job.budget.seconds] if job.budget.seconds else []
    return min(1.0, max(shares))
