"""The verdicts of all steps so far, in order: what the screen and the report tell."""

from __future__ import annotations

from dataclasses import dataclass

from lehr.recipe import coarse, curve_review, initial, overfit, rates
from lehr.recipe.results import Verdict
from lehr.recipe.state import RecipeState, round_id
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import all_trials, best_trial


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
        found.append(StepVerdict(StepId("last"), judge_final(state)))
    return found


def latest_verdict(state: RecipeState) -> StepVerdict | None:
    """The verdict of the last step that trained something; None before the first."""
    return next((each for each in reversed(step_verdicts(state)) if not each.review), None)


def judge_final(state: RecipeState) -> Verdict:
    """How the final training went, and which model the recipe keeps."""
    assert state.final
    final, best, now = state.final, best_trial(state.rounds), state.rounds[-1]
    metric = now.metric
    better = max(final.trained, best, key=lambda each: each.score(metric))
    updates = now.updates * max(final.trained.epochs, best.epochs) // max(1, best.epochs)
    count = len(all_trials(state.rounds)) + 1
    if verdict := coarse.unrelated(now.model_copy(update={"updates": updates}), better, count):
        return verdict
    if final.trained.failed:
        found = f"The final training failed: {final.trained.failed}"
    else:
        value = final.trained.format_best(metric)
        found = f"The final training reached {value} with {final.trained.setting} and a {final.schedule} schedule"
    others = [f"with {each.setting}: {each.format_outcome(metric)}" for each in final.beside]
    trial = f"the best trial of the search, at a constant learning rate, reached {best.format_best(metric)}"
    in_full = final.kept == final.trained.folder
    kept = f"The recipe keeps the model of {'the final training' if in_full else final.kept}."
    test = f" Its test accuracy is {final.test:.2%}." if final.test is not None else ""
    return Verdict(True, f"{'; '.join([found, *others, trial])}.", f"{kept}{test}")
