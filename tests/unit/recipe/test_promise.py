"""The result is never less than a step had, small data are trained rather than searched, and time is a promise too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.benchmarks.budgets import Case, kept, spend
from tests.support import tiny

from lehr.data.load import OpenedSources, splits
from lehr.errors import RunError
from lehr.job import from_dict, to_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe import coarse, initial, overfit, refine
from lehr.recipe.budget import budget_epochs, is_small, spent_epochs
from lehr.recipe.forecast import RecipePace
from lehr.recipe.initial import InitialCheck
from lehr.recipe.kept import candidates, kept_trial
from lehr.recipe.measurement import FULL_UPDATES
from lehr.recipe.overfit import OverfitAttempt, OverfitCheck, overfit_sample
from lehr.recipe.overview import spent_in_words
from lehr.recipe.planner import End, Step, next_step
from lehr.recipe.rates import LEAST_STEPS, RateTest, RateTests, choose, run_rate_test
from lehr.recipe.state import RecipeState, discard_damaged, write_plan, write_result
from lehr.recipe.step_results import result_of
from lehr.recipe.steps import StepId
from lehr.recipe.study import StepStudy
from lehr.recipe.trial_results import (
    FinalTraining,
    Hyperparameters,
    RoundDiagnosis,
    SearchRound,
    TrainingPlan,
    TrialResult,
)
from lehr.recipe.verdicts import step_verdicts
from lehr.runs import BestValue, Folder, Progress, RunFolder, read_model
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.stopping import Enough
from lehr.trials import Clock, Deadline, Outcome, TrialCallbacks

SOUND = InitialCheck(
    rows=256, counts=(10,) * 10, loss=2.4, trainable=99, layers=3, output_std=0.6, output_min=-1, output_max=1
)


def job(**changes: Any) -> RecipeJob:
    made = from_dict({"kind": "recipe", "base": {"model": {"name": "small_cnn", "width": 8}}, **changes})
    assert isinstance(made, RecipeJob)
    return made


def check(rate: float = 0.1, end: float = 0.1, accuracy: float = 1.0, **changes: Any) -> OverfitCheck:
    """Step 2 on a hundred training images."""
    attempt = OverfitAttempt(rate=rate, losses=(2.3,) * 5 + (end,) * 5, accuracies=((60, accuracy),), update=0.01)
    about: dict[str, Any] = {"rows": 100, "batch": 64, "counts": (10,) * 10, "training_rows": 100, "epochs": 5.0}
    measured = {"validation_rows": 359, "validation_accuracy": 0.87, "common": 0.1, "value": 0.87}
    return OverfitCheck(**about | measured | {"attempts": (attempt,), "base_rate": 0.1} | changes)


def test_a_rate_at_which_the_loss_only_falls_from_what_it_exploded_to_is_not_kept() -> None:
    wild = OverfitAttempt(rate=10.0, losses=(2.3, 300.0, 90.0, 40.0, 9.0, 5.0, *(2.6,) * 20), accuracies=(), update=0.5)
    learns = OverfitAttempt(rate=0.1, losses=(2.3,) * 10 + (1.5,) * 20, accuracies=(), update=0.01)
    assert check(attempts=(wild,), base_rate=10.0).best_rate is None
    assert check(attempts=(wild, learns), base_rate=10.0).best_rate == 0.1


# ── small data ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ten_images_of_a_class_are_trained_in_full_and_not_searched() -> None:
    state = RecipeState(initial=SOUND, overfit=check())
    step = next_step(job(), state)
    assert isinstance(step, Step)
    assert step.id == StepId("last")
    assert [setting.rate for setting in step.plan.settings] == [0.1]
    assert step.plan.epochs == 95  # of 100, of which step 2 took 5
    assert step.plan.left_out.startswith("Left out, as a search would be: the budget has room for 95 updates, and a")


def test_on_small_data_a_rate_at_which_nothing_moved_is_not_trained_in_full() -> None:
    tried = OverfitAttempt(rate=1e-7, losses=(2.3,) * 30, accuracies=((30, 0.1),), update=1e-9)
    state = RecipeState(initial=SOUND, overfit=check(attempts=(tried,), cut="Cut short: the budget."))
    step = next_step(job(), state)
    assert isinstance(step, Step)
    assert step.plan.settings[0].rate == 0.1  # the usual one of SGD


@pytest.mark.parametrize(("updates", "trials", "epochs"), [(1, 0, 0), (3, 0, 0), (8, 3, 7), (12, 3, 5), (60, 9, 2)])
def test_trials_of_too_few_updates_are_not_compared(updates: int, trials: int, epochs: int) -> None:
    plan = coarse.plan_grid((0.1, 0.03, 0.01), (1e-4, 1e-5, 0.0), 100, updates)
    assert (len(plan.settings), plan.epochs) == (trials, epochs)
    assert plan.epochs * updates >= coarse.LEAST_UPDATES or not trials
    assert ("Left out: the budget has room for" in plan.left_out) == (not trials)


def test_larger_data_are_searched_as_before() -> None:
    made = job(base={"train": {"batch_size": 16}})
    state = RecipeState(initial=SOUND, overfit=check(training_rows=1437))
    assert not is_small(made, state)
    step = next_step(made, state)
    assert isinstance(step, Step)
    assert step.id == StepId("learning_rate")


# ── the model that is kept ──────────────────────────────────────────────────────────────────────────────────────────


def trained(folder: Path, name: str, value: float) -> Outcome:
    """A training that has ended, with a best value."""
    run = RunFolder.create(Folder.at(folder / name), to_dict(tiny()))
    run.begin_attempt(workers=1, steps_per_epoch=5, total_steps=10)
    run.write_progress(Progress(status="finished", message="all epochs done", best=BestValue("", value)))
    return Outcome("finished", "all epochs done", run)


@pytest.mark.parametrize(("step_2", "kept_folder"), [(0.87, "recipe/2-overfit"), (0.3, "recipe/7-last")])
def test_the_best_that_any_step_had_is_kept(
    step_2: float, kept_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        RunFolder, "epochs", lambda self: pa.table({"epoch": [1, 2], "validation_accuracy": [0.3, 0.345]})
    )
    state = RecipeState(initial=SOUND, overfit=check(value=step_2, validation_accuracy=step_2))
    outcomes = {"recipe/7-last": trained(tmp_path, "recipe/7-last", 0.345)}
    trained(tmp_path, "recipe/2-overfit", step_2)
    step = Step(StepId("last"), TrainingPlan((Hyperparameters(rate=0.1, decay=0),), 2, "Left out: too small."))
    final = result_of(job(), state, step, outcomes, Folder.at(tmp_path))
    state = replace(state, final=final)  # type: ignore[arg-type]
    assert kept_trial(state).folder == kept_folder
    assert kept_trial(state).score("validation_accuracy") == max(
        each.score("validation_accuracy") for each in candidates(state)
    )
    found, last = step_verdicts(state)[-2:]
    assert found.verdict.found == "Left out: too small."
    assert f"the network of step 2, trained on a sample only, reached {step_2:.1%}" in last.verdict.found
    assert isinstance(end := next_step(job(), state), End)
    assert end.status == "finished"


def sample(tmp_path: Path, budget: float, should_stop: Callable[[], str | None] = lambda: None) -> tuple[Any, Plan]:
    """Step 2 on the tiny job's 330 images."""
    made = tiny(train__epochs=1, schedule="constant")
    plan = Plan.make(made, splits(made, OpenedSources(made).decode()))
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(made))
    overfit_sample(plan, run, Group(), TrialCallbacks(should_stop, lambda row: None), budget)
    return run, plan


@pytest.mark.parametrize(("budget", "attempts"), [(10.0, 1), (1.0, 0), (200.0, 1)])
def test_step_2_keeps_to_its_share_of_the_budget_and_leaves_a_model(
    budget: float, attempts: int, tmp_path: Path
) -> None:
    run, plan = sample(tmp_path, budget)
    found = OverfitCheck.read(run.folder)
    assert found.epochs <= budget * (overfit.SMALL_SHARE if budget * 6 < FULL_UPDATES else overfit.SHARE)
    assert len(found.attempts) == attempts
    verdict = overfit.judge(found)
    assert verdict.good
    if budget > 100:
        assert found.cut == ""
        assert found.last.outcome == "memorised"
    else:
        assert verdict.found.startswith("Cut short: the budget" if attempts else "Left out: the budget")
    if attempts:
        assert found.epochs == pytest.approx(sum(len(each.losses) for each in found.attempts) * found.batch / 330)
        model = prepare_model(plan, Group())
        model.load_state_dict(read_model(run.folder)[0])
        assert evaluate(model, plan.splits.validation, plan, Group())["accuracy"] == found.value


def test_unequal_classes_are_no_ground_to_stop_but_told_at_the_end() -> None:
    """Fifty to one: always predicting the frequent class is right for 98 %."""
    unequal = check(counts=(50, 0), validation_accuracy=0.968, value=0.968, common=0.968, validation_rows=31)
    assert overfit.judge(unequal).good
    trial = TrialResult(setting=Hyperparameters(rate=0.1, decay=0), folder="recipe/7-last", values=(0.968,))
    diagnosis = RoundDiagnosis(name="healthy", title="t", evidence="e")
    searched = SearchRound(
        number=0, metric="validation_accuracy", validation_rows=31, common=0.968, trained=(trial,), epochs=9,
        updates=500, best=trial.folder, diagnosis=diagnosis,
    )  # fmt: skip
    assert coarse.unrelated(searched, trial, 1) is None
    final = FinalTraining(trained=trial, kept=trial.folder, schedule="cosine", value=0.968, diagnosis=diagnosis)
    last = step_verdicts(RecipeState(overfit=unequal, final=final))[-1].verdict
    assert last.good
    assert "no more than always predicting the most frequent class (96.8%)" in last.found
    assert "base.data.sampling=balanced" in last.found


@pytest.mark.parametrize("rows", [4, 400])
def test_too_few_validation_images_are_no_ground_to_stop(rows: int) -> None:
    trial = TrialResult(setting=Hyperparameters(rate=0.1, decay=0), folder="trials/0000", values=(0.75,))
    searched = SearchRound(
        number=0, metric="validation_accuracy", validation_rows=rows, common=0.75, trained=(trial,), epochs=9,
        updates=500, best=trial.folder, diagnosis=RoundDiagnosis(name="healthy", title="t", evidence="e"),
    )  # fmt: skip
    assert (coarse.unrelated(searched, trial, 1) is None) == (rows == 4)  # all four right would be no proof either


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_measurements_that_have_no_more_time_leave_what_they_have(tmp_path: Path) -> None:
    looks: list[int] = []

    def enough() -> str | None:
        looks.append(1)
        return Enough("the time is over") if len(looks) == 2 else None

    run, plan = sample(tmp_path, math.inf, enough)
    found = OverfitCheck.read(run.folder)
    assert len(found.last.losses) == 20
    assert found.cut == "Cut short: the time is over."
    looks.clear()
    test = RunFolder.create(Folder.at(tmp_path / "test"), to_dict(plan.job))
    run_rate_test(plan, test, Group(), TrialCallbacks(enough, lambda row: None))
    rate = RateTest.read(test.folder)
    assert (len(rate.rates), rate.cut) == (20, True)
    assert LEAST_STEPS > 20
    some = choose(RateTests(tests=(rate,), own=0.2, cut="45% of the budget is used up"))
    assert some.rates[0] == 0.2
    assert some.verdict.found == "Cut short after 0 rates: 45% of the budget is used up."


def test_trials_for_which_no_time_is_left_are_left_out(tmp_path: Path) -> None:
    made = job(budget={"epochs": 60, "minutes": 1})
    run = RunFolder.create(Folder.at(tmp_path), to_dict(made))
    run.write_progress(Progress(seconds={"total": 50.0}))  # of an earlier attempt
    clock = Clock(run)
    assert clock.seconds >= 50
    step = Step(StepId("coarse"), TrainingPlan((Hyperparameters(rate=0.1, decay=0),), 2))
    assert StepStudy(made, RecipeState(), step, clock, RecipePace()).ask() is None  # the search must end after 36 s
    last = StepStudy(made, RecipeState(), replace(step, id=StepId("last")), clock, RecipePace()).ask()
    assert last
    assert last.deadline
    assert 9 < last.deadline.seconds_left <= 10
    assert last.deadline.reason == "the budget of 1 minute is used up"
    state = RecipeState(initial=SOUND, overfit=check(training_rows=5000), rates=RateTests(own=0.1), seconds=50)
    final = next_step(made, state)
    assert isinstance(final, Step)
    assert (final.id, final.plan.left_out) == (StepId("last"), "Left out: 60% of the budget of 1 minute is used up.")
    assert spent_in_words(made, state) == "5 of 60 epochs, 50 s of 1 min 00 s"


def test_a_step_2_for_which_there_was_no_time_is_left_out(tmp_path: Path) -> None:
    made, step = job(budget={"minutes": 1}), Step(StepId("overfit"))
    found = result_of(made, RecipeState(initial=SOUND), step, {}, Folder.at(tmp_path))
    state = RecipeState(initial=SOUND, overfit=found)  # type: ignore[arg-type]
    assert step_verdicts(state)[-1].verdict.found == "Left out: 30% of the budget of 1 minute is used up."
    assert next_step(made, state) == Step(StepId("learning_rate"))


def test_a_recipe_that_is_resumed_goes_on_with_the_step_that_it_began(tmp_path: Path) -> None:
    folder, plan = Folder.at(tmp_path), TrainingPlan((Hyperparameters(rate=0.1, decay=0),), 7)
    write_result(folder, StepId("initial_loss"), SOUND)
    write_result(folder, StepId("overfit"), check())
    write_plan(folder, StepId("coarse"), plan)
    made = job(budget={"epochs": 100, "minutes": 1})
    for seconds in (10, 59):  # less time is left now than when it was planned
        assert next_step(made, RecipeState.read(folder, seconds)) == Step(StepId("coarse"), plan)


def test_a_deadline_ends_a_trial_before_it_and_gives_way_to_a_request_to_stop() -> None:
    over = Deadline(time.time() + 0.2, "over").watch(lambda: None)()
    assert isinstance(over, Enough)
    assert over == "over"
    assert Deadline(time.time() + 60, "over").watch(lambda: None)() is None
    assert not isinstance(Deadline(0, "over").watch(lambda: "asked to stop")(), Enough)


@pytest.mark.parametrize("case", [
    Case("recipe", 10, 16, epochs=6), Case("recipe", 10, 128, minutes=0.05), Case("random", 10, 16, minutes=0.03),
], ids=lambda case: f"{case.method}-{case.budget}")  # fmt: skip
def test_what_is_spent_is_what_was_allowed(case: Case, tmp_path: Path) -> None:
    spent = spend(case, tmp_path)
    busy = replace(spent, seconds=spent.seconds - 2)  # a busy machine takes so long to begin, which nothing can cut
    assert kept(case, busy), spent
    assert spent.value == spent.best


def test_the_budget_of_both_kinds_is_whatever_ends_first() -> None:
    test = RateTest(
        rates=(0.1,) * 100, losses=(2.3,) * 100, diverged=False, guess=2.3, rows=1000, batch=100, began=0, ended=20
    )
    state = RecipeState(rates=RateTests(tests=(test,), rows=1000, batch=100), seconds=20)
    assert spent_epochs(state) == 10  # at 2 s each
    assert budget_epochs(job(budget={"epochs": 60, "minutes": 1}), state) == 30
    assert budget_epochs(job(budget={"epochs": 25, "minutes": 1}), state) == 25


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_body_is_told_with_the_layers_that_are_trained() -> None:
    frozen = SOUND.model_copy(update={"layers": 1, "frozen": tuple(f"layer {number} (Conv2d)" for number in range(6))})
    verdict = initial.judge(frozen)
    assert verdict.good
    assert "1 of 7 layers are trained and get a gradient" in verdict.found
    assert "Note: layer 0 (Conv2d), layer 1 (Conv2d), layer 2 (Conv2d), … stay as initialized" in verdict.found
    made = tiny()
    plan = Plan.make(made, splits(made, OpenedSources(made).decode()))
    model = prepare_model(plan, Group())
    everything = initial.layers_of(model)
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    assert len(initial.frozen_layers(model)) == len(everything) - 1


@pytest.mark.parametrize(("left", "epochs"), [(200.0, 50), (20.0, 0)])
def test_a_trial_that_was_cut_short_goes_on_to_its_planned_end_or_not_at_all(left: float, epochs: int) -> None:
    """Its training was planned for that length: a shorter one would be another training."""
    settings = [Hyperparameters(rate=rate, decay=0) for rate in (0.1, 0.03)]
    trials = tuple(
        TrialResult(setting=setting, folder=f"trials/{number:04}", values=(0.5 - 0.1 * number,) * (10 + number))
        for number, setting in enumerate(settings)
    )
    coarse_round = SearchRound(
        number=0, metric="validation_accuracy", validation_rows=359, common=0.1, trained=trials, epochs=21,
        updates=10, best="trials/0000", planned=50, diagnosis=RoundDiagnosis(name="too_short", title="t", evidence="e"),
    )  # fmt: skip
    assert refine.plan_round([coarse_round], (), left).epochs == epochs


@pytest.mark.parametrize("damage", [b"not JSON", b"", b'{"settings": 3, "epochs": 1, "left_out": ""}'])
def test_a_damaged_plan_is_made_again_where_the_budget_makes_the_same(damage: bytes, tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "run"), {})
    base: dict[str, Any] = {"kind": "recipe", "recipe": {"learning_rates": [0.1, 0.03], "start_at": "coarse"}}
    job = from_dict({**base, "budget": "60ep"})
    assert isinstance(job, RecipeJob)
    planned = next_step(job, RecipeState.read(run.folder))
    assert isinstance(planned, Step)
    write_plan(run.folder, planned.id, planned.plan)
    assert RecipeState.read(run.folder).begun == (planned.id, planned.plan)
    run.folder.child(planned.id.folder).write("plan.json", damage)
    assert next_step(job, RecipeState.read(run.folder)) == planned
    timed = from_dict({**base, "budget": {"epochs": 60, "minutes": 5}})
    assert isinstance(timed, RecipeJob)
    with pytest.raises(RunError, match=r"plan\.json is damaged: .* start over with --fresh"):
        next_step(timed, RecipeState.read(run.folder))


def test_a_damaged_result_of_a_step_is_made_again_with_all_later_ones(tmp_path: Path) -> None:
    run = Folder.at(tmp_path)
    write_result(run, StepId("initial_loss"), SOUND)
    write_result(run, StepId("overfit"), check())
    write_result(run, StepId("learning_rate"), RateTests())
    assert discard_damaged(run) == []
    run.child(StepId("overfit").folder).write("result.json", b'{"rows": ')
    with pytest.raises(RunError, match="damaged"):
        RecipeState.read(run)  # a report of it is refused
    assert discard_damaged(run) == ["recipe/2-overfit/result.json"]
    state = RecipeState.read(run)
    assert state.initial
    assert (state.overfit, state.rates) == (None, None)
