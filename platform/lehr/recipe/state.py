"""All results of a recipe so far, read back from its run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from lehr.recipe.initial import InitialCheck
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.rates import RateTests
from lehr.recipe.results import FILE, Result
from lehr.recipe.steps import StepId, StepName
from lehr.recipe.trial_results import FinalTraining, SearchRound
from lehr.runs import Folder

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class RecipeState:
    """The results so far; None, or none, for steps that are not done."""

    initial: InitialCheck | None = None
    overfit: OverfitCheck | None = None
    rates: RateTests | None = None
    rounds: tuple[SearchRound, ...] = ()
    final: FinalTraining | None = None

    @classmethod
    def read(cls, run: Folder) -> RecipeState:
        """The state of the recipe in a run folder. Raises RunError where a result is damaged."""
        rounds: list[SearchRound] = []
        while found := _read(SearchRound, run, round_id(len(rounds))):
            rounds.append(found)
        return cls(
            initial=_read(InitialCheck, run, StepId("initial_loss")),
            overfit=_read(OverfitCheck, run, StepId("overfit")),
            rates=_read(RateTests, run, StepId("learning_rate")),
            rounds=tuple(rounds),
            final=_read(FinalTraining, run, StepId("last")),
        )


def round_id(number: int) -> StepId:
    """The step that a round of the search is: 0 is the coarse search."""
    return StepId("refine", number) if number else StepId("coarse")


def write_result(run: Folder, step: StepId, result: Result) -> None:
    """Keeps the result of a step in the recipe's run folder, where `RecipeState.read` finds it."""
    result.write(run.child(step.folder))


def discard(run: Folder, name: StepName) -> None:
    """Deletes what a step left, so that it is done again; for steps 4 to 7, all their trials."""
    if name in ("initial_loss", "overfit", "learning_rate"):
        run.child(StepId(name).folder).delete_all()
        return
    for each in run.child("recipe").folders():
        step = StepId.of_folder(f"recipe/{each}")
        if step and step.name in ("coarse", "refine", "last"):
            run.child("recipe", each).delete_all()
    run.child("trials").delete_all()


def _read(kind: type[R], run: Folder, step: StepId) -> R | None:
    folder = run.child(step.folder)
    return kind.read(folder) if folder.exists(FILE) else None
