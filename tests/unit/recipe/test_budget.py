"""A budget of epochs is a promise: whatever the data and the curves are like, a recipe never spends more."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.errors import JobError, LehrError
from lehr.job import from_dict
from lehr.job.finetune import FinetuneSection
from lehr.job.recipe import RecipeJob
from lehr.kinds import run_job
from lehr.kinds.recipe import check
from lehr.recipe.budget import spent_epochs
from lehr.recipe.overfit import OverfitAttempt, OverfitCheck
from lehr.recipe.planner import End, Step, next_step
from lehr.recipe.preview import preview
from lehr.recipe.rates import LEAST_STEPS, STEPS, RateTest, RateTests, choose
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import final_folders, next_rate_test, rate_test_epochs, trials_of
from lehr.recipe.trial_results import (
    FinalTraining,
    RoundDiagnosis,
    SearchRound,
    TrialResult,
    all_trials,
    ranked,
    trial_folders,
)
from lehr.runs import Folder, RunFolder
from lehr.trials import Outcome

BASE: dict[str, Any] = {"model": {"name": "small_cnn", "width": 8}, "optimizer": {"name": "sgd", "lr": 0.1}}


def job(budget: str, batch_size: int = 128, epochs: int = 20, **recipe: Any) -> RecipeJob:
    base = {**BASE, "train": {"epochs": epochs, "batch_size": batch_size}}
    made = from_dict({"kind": "recipe", "budget": budget, "base": base, "recipe": recipe})
    assert isinstance(made, RecipeJob)
    check(made)
    return made


def rates_found(job: RecipeJob, rows: int, folder: Path) -> RateTests:
    """Step 3 on so many rows, where the highest rate tried is always the best."""
    outcomes: list[Outcome] = []
    state = RecipeState()

    def measure(ranges: bool, rate: float) -> None:
        per_epoch = math.ceil(rows / job.base.train.batch_size)
        steps = int(min(STEPS, rate_test_epochs(job, state, ranges) * per_epoch))
        steps = steps if steps >= LEAST_STEPS else 0
        losses = (9.0, *(1 / (1 + 1e4 * rate),) * STEPS)
        each = folder / f"{len(outcomes)}"
        result = RateTest(
            rates=tuple(rate * (step + 1 if ranges else 1) for step in range(steps)), losses=losses[:steps],
            diverged=False, guess=9.0, rows=rows, batch=job.base.train.batch_size, began=0, ended=1,
        )  # fmt: skip
        result.write(Folder.at(each))
        outcomes.append(Outcome("finished", "", RunFolder(Folder.at(each))))

    for number in range(7):
        measure(False, 10.0 ** (number / 2 - 4))
    while trial := next_rate_test(job, state, outcomes):
        measure(trial.trainable.func.__name__ == "run_range_test", trial.job.optimizer.rate)  # type: ignore[attr-defined]
    results = [RateTest.read(outcome.run.folder) for outcome in outcomes]
    tests = tuple(each for each in results if each.rates)
    return RateTests(tests=tests, own=0.1, rows=rows, batch=job.base.train.batch_size)


def trained(job: RecipeJob, state: RecipeState, step: Step, diagnosis: str) -> RecipeState:
    """The state after a step in which every trial gets a little better with every epoch."""

    def result(folder: str, setting: Any) -> TrialResult:
        values = tuple(min(0.99, 0.3 + 0.05 * epoch + 0.01 * setting.rate) for epoch in range(step.plan.epochs))
        return TrialResult(setting=setting, folder=folder, values=values)

    found = RoundDiagnosis(name=diagnosis, title="t", evidence="e")
    if step.id.name == "last":
        first, *beside = [result(folder, setting) for folder, setting in final_folders(step).items()]
        final = FinalTraining(
            trained=first, kept=first.folder, schedule="cosine", value=1.0, diagnosis=found, beside=tuple(beside)
        )
        return RecipeState(rates=state.rates, rounds=state.rounds, final=final)
    folders = trial_folders(state.rounds, step.plan.settings)
    trials, before = tuple(result(*item) for item in folders.items()), all_trials(state.rounds)
    more = sum(each.epochs - (before[each.folder].epochs if each.folder in before else 0) for each in trials)
    best = ranked([*before.values(), *trials], "validation_accuracy")[0]
    after = SearchRound(
        number=len(state.rounds), metric="validation_accuracy", validation_rows=10_000, common=0.1, trained=trials,
        epochs=more, updates=best.epochs, best=best.folder, diagnosis=found,
    )  # fmt: skip
    return RecipeState(rates=state.rates, rounds=(*state.rounds, after))


@pytest.mark.parametrize("rows", [6, 100, 161, 1437, 50_000])
@pytest.mark.parametrize("budget", [4, 5, 9, 20, 60, 100, 300])
def test_no_recipe_spends_more_than_its_budget(rows: int, budget: int, tmp_path: Path) -> None:
    spent = set()
    for number, (epochs, diagnosis) in enumerate(
        [(1, "too_short"), (2, "healthy"), (20, "too_short"), (20, "overfitting"), (200, "rate_too_low")]
    ):
        made = job(f"{budget}ep", epochs=epochs, start_at="learning_rate")
        state = RecipeState(rates=rates_found(made, rows, tmp_path / str(number)))
        while isinstance(step := next_step(made, state), Step):
            state = trained(made, state, step, diagnosis)
            assert spent_epochs(state) <= budget
        assert isinstance(step, End)
        assert step.status == "finished"
        spent.add(spent_epochs(state))
    assert max(spent) > budget / 4  # and it uses it


def test_without_room_for_a_test_the_own_rate_and_lower_ones_are_searched() -> None:
    found = choose(RateTests(own=0.1))
    assert found.rates == (0.1, 0.03, 0.01)
    assert found.verdict.good
    assert found.verdict.found.startswith("Left out: the budget has no room")


@pytest.mark.parametrize(("rows", "budget"), [(30, 20), (200, 100), (1437, 60), (1437, 200), (50_000, 4)])
def test_the_preview_leaves_out_what_the_run_leaves_out(rows: int, budget: int) -> None:
    """The same decision as that of the run, which knows the rows once step 2 is done."""
    made = job(f"{budget}ep", start_at="learning_rate")
    memorised = OverfitAttempt(rate=0.1, losses=(2.3, 0.1), accuracies=((60, 1.0),), update=0.01)
    checked = RecipeState(overfit=OverfitCheck(attempts=(memorised,), training_rows=rows, base_rate=0.1, counts=(5, 5)))
    step = next_step(made, checked)
    assert isinstance(step, Step)
    told = {title: what for title, what, _ in preview(made, rows)}
    assert ("3 Find the learning rate" in told) == (step.id.name == "learning_rate")
    assert ("3 to 6" in told) == (step.id.name == "last")


def test_the_preview_counts_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("kind: recipe\nbudget: 100ep\nbase: {data: {per_class: 3}}\n")
    found = CliRunner().invoke(app, ["recipe", str(file), "--preview"])
    assert found.exit_code == 0
    assert "30 training images, in batches of 128" in found.output
    assert "3 to 6" in found.output


@pytest.mark.slow
def test_a_recipe_of_eight_photographs_keeps_to_its_budget(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw(photos, 4)
    data = {"source": "images", "path": str(photos), "validation": 0.25}
    changes = {"budget": "20ep", "base.data": data, "base.train.epochs": 3, "recipe.start_at": "learning_rate"}
    made = from_dict({"kind": "recipe", "base": BASE, "name": "few", "storage": str(tmp_path / "runs")}, changes)
    run = run_job(made, debug=True)
    state = RecipeState.read(run.folder)
    assert state.rates
    assert state.rates.tests == ()
    assert 4 <= spent_epochs(state) <= 20
    page = run.folder.read("report.html").decode()
    assert "the budget has no room for the 50 updates" in page
    assert "The search tries the job&#39;s own learning rate" in page or "The search tries the job's own" in page


def draw(folder: Path, count: int) -> None:
    """Photographs of two classes, a dark and a bright one."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for label, low in (("dark", 0), ("bright", 120)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(low, low + 120, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def test_a_budget_that_cannot_pay_for_a_final_training_is_refused() -> None:
    with pytest.raises(JobError, match="3ep is too little for a trial and the final training; allowed: from 4ep"):
        job("3ep")


def test_a_recipe_whose_best_model_guesses_has_failed_and_keeps_it(tmp_path: Path) -> None:
    """A small budget leaves the search out; the rate is far too low to learn anything in it."""
    base = {**BASE, "optimizer": {"name": "sgd", "lr": 1e-7}, "train": {"epochs": 2}}
    recipe = {"start_at": "learning_rate"}
    made = from_dict(
        {"kind": "recipe", "budget": "4ep", "base": base, "recipe": recipe, "name": "low", "storage": str(tmp_path)}
    )
    with pytest.raises(LehrError) as caught:
        run_job(made, debug=True)
    said = str(caught.value)
    assert said.startswith("Step 7, final training: The best model classifies ")
    assert "no better than always predicting the most frequent class (10.0%)" in said
    assert "the budget has room for 48 updates, and a training takes 900" in said
    run = RunFolder.open(Folder.at(tmp_path / "low"))
    assert run.status() == "failed"
    assert run.folder.exists("model")
    assert "The recipe stops here" in run.folder.read("report.html").decode()


def test_one_training_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {**BASE, "data": {"limit": 200}, "train": {"epochs": 2, "batch_size": 32}}
    recipe = {"start_at": "learning_rate"}
    made = from_dict(
        {"kind": "recipe", "budget": "6ep", "base": base, "recipe": recipe, "name": "one", "storage": str(tmp_path)}
    )
    run_job(made, debug=True)
    said = capsys.readouterr().out
    assert "6 of 6 epochs, in 1 training." in said
    page = RunFolder.open(Folder.at(tmp_path / "one")).folder.read("report.html").decode()
    shown = re.findall(r"\d\d\.\d+%(?! ±| \()", page.split("Job")[0])
    assert shown == [], shown


@pytest.mark.parametrize("own", [None, {"head_first": "0step", "lr_factor": 1.0}])
def test_few_updates_fine_tune_pretrained_weights_head_first(own: dict[str, Any] | None) -> None:
    base: dict[str, Any] = {**BASE, "model": {"name": "small_cnn", "weights": "run:other"}, "finetune": own}
    made = from_dict({"kind": "recipe", "budget": "20ep", "base": base, "recipe": {"start_at": "learning_rate"}})
    assert isinstance(made, RecipeJob)
    memorised = OverfitAttempt(rate=0.1, losses=(2.3, 0.1), accuracies=((60, 1.0),), update=0.01)
    checked = OverfitCheck(attempts=(memorised,), training_rows=30, base_rate=0.1, counts=(5, 5))
    step = next_step(made, RecipeState(overfit=checked))
    assert isinstance(step, Step)
    assert step.id.name == "last"
    (trial,) = trials_of(made, RecipeState(overfit=checked), step)
    assert trial.job.finetune == (FinetuneSection() if own is None else made.base.finetune)
    assert trial.job.train.max_gradient_norm == (1.0 if own is None else None)
    assert ("fine-tuned, its head first" in step.plan.left_out) == (own is None)
