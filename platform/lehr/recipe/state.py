"""All results of a recipe so far, read back from its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from lehr.errors import RunError
from lehr.recipe.initial import InitialCheck
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.rates import RateTests
from lehr.recipe.results import FILE, Result
from lehr.recipe.steps import StepId, StepName
from lehr.recipe.trial_results import FinalTraining, SearchRound, TrainingPlan
from lehr.runs import Folder

R = TypeVar("R", bound=Result)
PLAN = "plan.json"
PLANS = TypeAdapter(TrainingPlan)
_RESULTS: Mapping[StepName, type[Result]] = {
    "initial_loss": InitialCheck,
    "overfit": OverfitCheck,
    "learning_rate": RateTests,
    "coarse": SearchRound,
    "refine": SearchRound,
    "last": FinalTraining,
}


@dataclass(frozen=True)
class RecipeState:
    """The results so far; None, or none, for steps that are not done.

    Attributes:
        begun: the step of the search that has begun and has no result yet, and what it trains.
        seconds: wall time so far, of all attempts.
        damaged_plan: the damaged file of what a begun step trains; empty if there is none.
    """

    initial: InitialCheck | None = None
    overfit: OverfitCheck | None = None
    rates: RateTests | None = None
    rounds: tuple[SearchRound, ...] = ()
    final: FinalTraining | None = None
    begun: tuple[StepId, TrainingPlan] | None = None
    seconds: float = 0.0
    damaged_plan: str = ""

    @property
    def seconds_per_epoch(self) -> float | None:
        """What an epoch took among the trials of the last round, or in step 3; None where neither says."""
        known = [each.seconds_per_epoch for each in self.rounds if each.seconds_per_epoch]
        return known[-1] if known else (self.rates.seconds_per_epoch if self.rates else None) or None

    @classmethod
    def read(cls, run: Folder, seconds: float = 0.0) -> RecipeState:
        """The state of the recipe in a run folder. Raises RunError where a result is damaged.

        Args:
            seconds: what all attempts took so far.
        """
        rounds: list[SearchRound] = []
        while found := _read(SearchRound, run, round_id(len(rounds))):
            rounds.append(found)
        final = _read(FinalTraining, run, StepId("last"))
        begun, damaged = (None, "") if final else _begun(run, len(rounds))
        return cls(
            initial=_read(InitialCheck, run, StepId("initial_loss")),
            overfit=_read(OverfitCheck, run, StepId("overfit")),
            rates=_read(RateTests, run, StepId("learning_rate")),
            rounds=tuple(rounds),
            final=final,
            begun=begun,
            seconds=seconds,
            damaged_plan=damaged,
        )


def round_id(number: int) -> StepId:
    """The step that a round of the search is: 0 is the coarse search."""
    return StepId("refine", number) if number else StepId("coarse")


def write_result(run: Folder, step: StepId, result: Result) -> None:
    """Keeps the result of a step in the recipe's run folder, where `RecipeState.read` finds it."""
    result.write(run.child(step.folder))


def write_plan(run: Folder, step: StepId, plan: TrainingPlan) -> None:
    """Keeps what a step will train: a budget of time would let a resumed recipe plan something else."""
    if plan.settings:
        run.child(step.folder).write_json(PLAN, PLANS.dump_python(plan))


def discard_plan(run: Folder, step: StepId) -> None:
    """Forgets what a step would have trained."""
    run.child(step.folder).delete(PLAN)


def discard_damaged(run: Folder) -> list[str]:
    """Deletes a damaged result and those of all later steps: each is made again of what its trials left.

    Returns:
        The files that were damaged.
    """
    rounds = (round_id(number) for number in range(len(run.child("recipe").folders()) + 1))
    steps = [StepId("initial_loss"), StepId("overfit"), StepId("learning_rate"), *rounds, StepId("last")]
    damaged: list[str] = []
    for step in steps:
        folder, kind = run.child(step.folder), _RESULTS[step.name]
        try:
            _read(kind, run, step)
        except RunError:
            damaged.append(f"{step.folder}/{FILE}")
        if damaged:
            folder.delete(FILE)
    return damaged


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


def _begun(run: Folder, rounds: int) -> tuple[tuple[StepId, TrainingPlan] | None, str]:
    """The step that has begun, with its plan; or the file of its plan, where that is damaged."""
    for step in (round_id(rounds), StepId("last")):
        folder = run.child(step.folder)
        if folder.exists(PLAN):
            try:
                return (step, PLANS.validate_python(folder.read_json(PLAN))), ""
            except (ValueError, RunError):
                return None, f"{folder.uri}/{PLAN}"
    return None, ""


def _read(kind: type[R], run: Folder, step: StepId) -> R | None:
    folder = run.child(step.folder)
    return kind.read(folder) if folder.exists(FILE) else None
