"""What a step writes, the recipe reads back: the two sides know its folder from one place."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lehr.job import from_dict
from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe.initial import InitialCheck
from lehr.recipe.overfit import OverfitAttempt, OverfitCheck
from lehr.recipe.planner import End, Step, next_step
from lehr.recipe.rates import RateTest, RateTests
from lehr.recipe.results import Result
from lehr.recipe.state import RecipeState, discard, write_result
from lehr.recipe.step_trials import final_folders, trials_of
from lehr.recipe.steps import StepId, StepName
from lehr.recipe.trial_results import (
    FinalTraining,
    Hyperparameters,
    RoundDiagnosis,
    SearchRound,
    TrainingPlan,
    TrialResult,
)
from lehr.runs import Folder

NAMES: tuple[StepName, ...] = get_args(StepName)
TOO_SHORT = RoundDiagnosis(name="too_short", title="Too short", evidence="it still rises")
RESULTS: dict[StepName, Result] = {
    "initial_loss": InitialCheck(
        rows=256, counts=(30,) * 10, loss=2.4, trainable=99, layers=3, output_std=0.6, output_min=-1, output_max=1
    ),
    "overfit": OverfitCheck(
        rows=320, batch=64, counts=(32,) * 10, base_rate=0.1,
        attempts=(OverfitAttempt(rate=0.1, losses=(2.3, 0.1), accuracies=((2, 1.0),), update=0.01),),
        validation_rows=360, validation_accuracy=0.9, common=0.1,
    ),
    "learning_rate": RateTests(
        tests=tuple(
            RateTest(
                rates=(rate,) * 100, losses=(2.4,) * 80 + (end,) * 20, diverged=False, guess=2.3, rows=1000, batch=50,
                began=0, ended=10,
            )
            for rate, end in ((0.01, 1.9), (0.1, 1.2), (0.3, 1.6))
        )
    ),
}  # fmt: skip


def recipe(budget: str = "200ep") -> RecipeJob:
    job = from_dict({"kind": "recipe", "budget": budget})
    assert isinstance(job, RecipeJob)
    return job


def result_of(step: Step, state: RecipeState) -> Result:
    """A good result of any step; each search round is better than the one before."""
    name = step.id.name
    if name in RESULTS:
        return RESULTS[name]
    value = 0.5 + 0.1 * len(state.rounds)
    trials = tuple(
        TrialResult(setting=setting, folder=f"trials/{number:04}", values=(value,) * step.plan.epochs)
        for number, setting in enumerate(step.plan.settings)
    )
    if name == "last":
        return FinalTraining(
            trained=trials[0],
            kept="trials/0000",
            schedule="cosine",
            value=value,
            diagnosis=TOO_SHORT,
            beside=trials[1:],
        )
    return SearchRound(
        number=len(state.rounds), metric="validation_accuracy", validation_rows=1000, common=0.1, trained=trials,
        epochs=10, updates=500, best="trials/0000", diagnosis=TOO_SHORT,
    )  # fmt: skip


def walk(folder: Folder) -> list[tuple[StepId, RecipeState]]:
    """A recipe that does every step; each with the state that is read back after it."""
    state, done = RecipeState.read(folder), []
    while isinstance(step := next_step(recipe(), state), Step):
        write_result(folder, step.id, result_of(step, state))
        state = RecipeState.read(folder)
        done.append((step.id, state))
        assert len(done) < 20, "a result that is written is not read back, so its step is planned again"
    assert isinstance(step, End)
    assert step.status == "finished"
    return done


def test_the_result_of_every_step_is_read_back_and_no_step_is_planned_twice(tmp_path: Path) -> None:
    done = walk(Folder.at(tmp_path))
    ids = [step for step, _ in done]
    assert len(set(ids)) == len(ids)
    assert {step.name for step in ids} == set(NAMES)
    assert StepId("refine", 2) in ids
    for step, state in done:
        counts = {
            "initial_loss": state.initial is not None,
            "overfit": state.overfit is not None,
            "learning_rate": state.rates is not None,
            "coarse": len(state.rounds) > 0,
            "refine": len(state.rounds) > step.round,
            "last": state.final is not None,
        }
        assert counts[step.name], step


@pytest.mark.parametrize(
    "step", [*(StepId(name) for name in NAMES if name != "refine"), StepId("refine", 1), StepId("refine", 12)], ids=str
)
def test_the_step_of_a_folder_is_the_step_that_writes_it(step: StepId) -> None:
    assert StepId.of_folder(step.folder) == step
    if step.name not in ("coarse", "refine"):
        assert StepId.of_folder(step.trial_folder(3)) == step


@pytest.mark.parametrize("folder", ["trials/0001", "recipe", "recipe/8-more", "recipe/4-coarser", "4-coarse"])
def test_other_folders_belong_to_no_step(folder: str) -> None:
    assert StepId.of_folder(folder) is None


def test_the_steps_are_those_that_a_job_may_name() -> None:
    assert NAMES == STEPS


def test_trials_lie_in_folders_of_their_step_or_of_the_search(tmp_path: Path) -> None:
    folder, job = Folder.at(tmp_path), recipe()
    state = RecipeState.read(folder)
    while isinstance(step := next_step(job, state), Step):
        for trial in trials_of(job, state, step):
            owner = StepId.of_folder(trial.folder)
            assert owner == step.id if step.id.name not in ("coarse", "refine") else trial.folder.startswith("trials/")
        write_result(folder, step.id, result_of(step, state))
        state = RecipeState.read(folder)


def test_final_trainings_of_several_settings_have_folders_of_their_own() -> None:
    settings = (Hyperparameters(rate=0.1, decay=0), Hyperparameters(rate=0.2, decay=0))
    step = Step(StepId("last"), TrainingPlan(settings, 20))
    assert list(final_folders(step)) == ["recipe/7-last", "recipe/7-last-1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_discarded_step_is_planned_again(name: StepName, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    walk(folder)
    folder.child("trials/0000").write_json("result.json", {})
    discard(folder, name)
    state = RecipeState.read(folder)
    if name in ("initial_loss", "overfit", "learning_rate"):
        assert {"initial_loss": state.initial, "overfit": state.overfit, "learning_rate": state.rates}[name] is None
        assert state.rounds
        return
    assert (state.rounds, state.final) == ((), None)
    assert "trials" not in folder.folders()
    assert state.rates is not None
