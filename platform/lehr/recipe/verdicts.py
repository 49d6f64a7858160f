"""The verdicts of all steps so far, in order: what the screen and the report tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lehr.intervals import in_words, no_better
from lehr.recipe import coarse, curve_review, initial, overfit, rates
from lehr.recipe.kept import candidates, common_of, kept_trial, metric_of, overfit_trial, rows_of
from lehr.recipe.results import UNEQUAL, Verdict
from lehr.recipe.state import RecipeState, round_id
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import all_trials, best_trial

_ALL_IN_ONE = "All that is left of the budget goes into one training."


@dataclass(frozen=True)
class StepVerdict:
    """What a step, or a round of one, came to.

    Attributes:
        review: whether this is step 6, the review of the curves after the round `step`.
    """

    step: StepId
    verdict: Verdict
    review: bool = False

    @property
    def number(self) -> int:
        """Of the step, 1 to 7."""
        return 6 if self.review else self.step.number

    @property
    def heading(self) -> str:
        """`5 Refined search, round 2`."""
        title = "Review of the learning curves" if self.review else self.step.title
        return f"{self.number} {title}" + (f", round {self.step.round}" if self.step.round else "")


def step_verdicts(state: RecipeState) -> list[StepVerdict]:
    """Every verdict so far, in order."""
    found = []
    if state.initial:
        found.append(StepVerdict(StepId("initial_loss"), initial.judge(state.initial)))
    if state.overfit:
        found.append(StepVerdict(StepId("overfit"), overfit.judge(state.overfit)))
    if state.rates:
        found.append(StepVerdict(StepId("learning_rate"), rates.choose(state.rates).verdict))
    for number in range(len(state.rounds)):
        rounds = state.rounds[: number + 1]
        if not number:
            found.append(StepVerdict(round_id(0), coarse.judge(rounds[0])))
            continue
        found.append(StepVerdict(round_id(number), curve_review.judge(rounds)))
        found.append(StepVerdict(round_id(number), curve_review.review(rounds).verdict, review=True))
    if state.final:
        if state.final.left_out:
            found.append(StepVerdict(_left_out(state), Verdict(True, state.final.left_out, _ALL_IN_ONE)))
        found.append(StepVerdict(StepId("last"), judge_final(state)))
    return found


def _left_out(state: RecipeState) -> StepId:
    """The first step that was left out for want of room."""
    return round_id(0) if state.rates or not state.overfit else StepId("learning_rate")


def latest_verdict(state: RecipeState) -> StepVerdict | None:
    """The verdict of the last step that trained something; None before the first."""
    return next((each for each in reversed(step_verdicts(state)) if not each.review), None)


def judge_final(state: RecipeState) -> Verdict:
    """How the final training went, and which model the recipe keeps."""
    assert state.final
    final, metric, rows = state.final, metric_of(state), rows_of(state)
    if verdict := _unrelated(state) or _learned_nothing(state):
        return verdict
    if final.trained.failed:
        found = f"The final training failed: {final.trained.failed}"
    else:
        value = final.trained.format_best(metric, rows)
        found = f"The final training reached {value} with {final.trained.setting} and a {final.schedule} schedule"
    others = [f"with {each.setting}: {each.format_outcome(metric, rows)}" for each in final.beside]
    if state.rounds:
        reached = best_trial(state.rounds).format_best(metric, rows)
        others.append(f"the best trial of the search, at a constant learning rate, reached {reached}")
    if checked := overfit_trial(state):
        reached = checked[0].format_best(metric, rows)
        others.append(f"the network of step 2, trained on a sample only, reached {reached}")
    in_full, in_check = final.kept == final.trained.folder, final.kept == StepId("overfit").trial_folder()
    whose = "the final training" if in_full else f"step 2 ({final.kept})" if in_check else final.kept
    cut = (f" {final.cut}" if final.cut else "") + _majority(state)
    test = f" Its test accuracy is {in_words(final.test, final.test_rows)}." if final.test is not None else ""
    why = ": no other reached more" if not in_full else ""
    return Verdict(True, f"{'; '.join([found, *others])}.{cut}", f"The recipe keeps the model of {whose}{why}.{test}")


def _majority(state: RecipeState) -> str:
    """That the model is no better than the most frequent class, where classes are unequal, and what to do about it."""
    common = common_of(state)
    if (
        metric_of(state) != "validation_accuracy"
        or not common > UNEQUAL
        or kept_trial(state).best(metric_of(state)) > common
    ):
        return ""
    return (
        f" That is no more than always predicting the most frequent class ({common:.1%}): rare classes may be missed. "
        "Train them as often as the others with base.data.sampling=balanced."
    )


def _learned_nothing(state: RecipeState) -> Verdict | None:
    """The verdict that even the best model does no better than a guess; None if it does, or the rows cannot tell.

    Where classes are very unequal, hardly anything could do better: that is no failure, and `_majority` tells of it.
    """
    metric, rows, common, best = metric_of(state), rows_of(state), common_of(state), kept_trial(state)
    value = best.best(metric)
    at_chance = math.isfinite(value) and no_better(value, common, rows) and common <= UNEQUAL
    if metric.removeprefix("averaged_") != "validation_accuracy" or not at_chance:
        return None
    what = f"The best model classifies {in_words(value, rows)} of {rows:,} validation images correctly"
    why = (f" {state.final.left_out}" if state.final and state.final.left_out else "") + (
        f" {state.final.cut}" if state.final and state.final.cut else ""
    )
    return Verdict(
        False,
        f"{what}, no better than always predicting the most frequent class ({common:.1%}): it has learned nothing that "
        f"holds for other images.{why} Raise the budget, and check how labels are matched to images.",
        "Its model is kept, but it is of no use.",
    )


def _unrelated(state: RecipeState) -> Verdict | None:
    """The verdict that there is only noise to learn; None if something was learned, or nothing was searched."""
    if not state.rounds or not state.final:
        return None
    final, best, now = state.final, best_trial(state.rounds), state.rounds[-1]
    better = max(candidates(state), key=lambda each: each.score(now.metric))
    updates = now.updates * max(final.trained.epochs, best.epochs) // max(1, best.epochs)
    count = len(all_trials(state.rounds)) + 1
    return coarse.unrelated(now.model_copy(update={"updates": updates}), better, count)
