"""Each decision of a recipe is a pure function of its results: tables of results and what follows from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lehr.errors import JobError, RunError
from lehr.job import from_dict
from lehr.job.recipe import RecipeJob
from lehr.kinds.recipe import check
from lehr.recipe import coarse, curve_review, initial, overfit, rates, refine
from lehr.recipe.budget import budget_epochs, spent_epochs
from lehr.recipe.initial import InitialCheck
from lehr.recipe.measurement import entropy
from lehr.recipe.overfit import OverfitAttempt, OverfitCheck
from lehr.recipe.overview import facts
from lehr.recipe.planner import End, Step, final_settings, next_step
from lehr.recipe.rates import RateTest, RateTests
from lehr.recipe.results import Result, round_to_digit
from lehr.recipe.state import RecipeState
from lehr.recipe.trial_results import (
    FinalTraining,
    Hyperparameters,
    RoundDiagnosis,
    SearchRound,
    TrainingPlan,
    TrialResult,
    all_trials,
    best_trial,
    ranked,
    trial_folders,
)
from lehr.recipe.verdicts import judge_final
from lehr.runs import Folder

LN10 = math.log(10)


def job(**overrides: Any) -> RecipeJob:
    made = from_dict({"kind": "recipe", "budget": "100ep"}, {k.replace("__", "."): v for k, v in overrides.items()})
    assert isinstance(made, RecipeJob)
    return made


# ── steps 1 and 2 ───────────────────────────────────────────────────────────────────────────────────────────────────

SOUND = InitialCheck(
    rows=256, counts=(30,) * 10, loss=2.4, trainable=99, first="a", last="z", layers=3,
    output_min=-1.0, output_max=1.0, output_std=0.6,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "The loss before training is 2.4; a random guess gives ln 10 = 2.3."),
        ({"counts": (271, *(1,) * 9)}, "or 0.213 if it knows how frequent the classes are"),
        ({"counts": (*(30,) * 9, 0)}, "Note: there is no training image of class 9"),
        ({"loss": 0.9, "pretrained": True}, "lower because the weights come from another run"),
        ({"loss": 3.7, "output_std": 1.9}, "The loss before training is 3.7"),
        (
            {"loss": 7.0, "output_std": 4.4},
            "Note: the loss starts high, because the outputs have a standard deviation of 4.4",
        ),
        ({"normalises": True, "input_mean": 120.0, "input_std": 60.0}, "mean 120.00"),
    ],
)
def test_a_sound_start_passes(changes: dict[str, Any], sentence: str) -> None:
    verdict = initial.judge(SOUND.model_copy(update=changes))
    assert verdict.good
    assert sentence in verdict.found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"loss": 60.0, "output_std": 57.0},
            "the last layer, z, or of the layers before it are about 57 times too large",
        ),
        ({"loss": 0.9}, "below the 2.3 of a guess, before anything was learned"),
        ({"loss": math.nan}, "The loss is NaN or infinite before any training"),
        ({"input_mean": 120.0, "input_std": 60.0}, "The inputs are not normalised: those of the first layer, a,"),
        ({"dead": (("b", 0.95),)}, "Dead units: 95% of the inputs of b are zero"),
        ({"failed": "it does not fit"}, "it does not fit."),
        ({"trainable": 0, "loss": math.nan}, "No parameter requires a gradient"),
        # The cause comes first: unnormalised inputs also make a high loss and dead units.
        ({"input_std": 60.0, "loss": 90.0, "dead": (("b", 1.0),)}, "The inputs are not normalised"),
    ],
)
def test_a_broken_start_is_reported_by_its_cause(changes: dict[str, Any], sentence: str) -> None:
    verdict = initial.judge(SOUND.model_copy(update=changes))
    assert not verdict.good
    assert sentence in verdict.found


def attempt(
    rate: float, start: float, end: float, accuracy: float, update: float = 5e-3, steps: int = 100
) -> OverfitAttempt:
    losses = tuple(start + (end - start) * step / (steps - 1) for step in range(steps))
    return OverfitAttempt(rate=rate, losses=losses, accuracies=((steps, accuracy),), update=update, diverged=end > 100)


@pytest.mark.parametrize(
    ("attempts", "sentence"),
    [
        (
            [attempt(0.1, 2.3, 200, 0.1), attempt(0.001, 2.3, 5, 0.1)],
            "Bad initialization, or all learning rates too high",
        ),
        ([attempt(0.1, 2.3, 2.3, 0.1, update=0.0)], "Nothing is trainable: the weights do not move"),
        ([attempt(0.1, 2.3, 0.5, 0.8)], "The network is too small, or the learning rate too low: at 0.1"),
        (
            [attempt(0.1, 2.3, 9, 0.1), attempt(0.001, 2.3, 2.3, 0.1, update=1e-5)],
            "Bad initialization: at low learning rates",
        ),
        ([attempt(0.1, 2.3, 2.29, 0.1)], "Labels do not seem to match inputs: the weights move"),
        ([attempt(0.1, 2.3, 1.8, 0.4)], "cannot tell these images apart"),
    ],
)
def test_a_sample_that_is_not_memorised_names_the_likely_cause(attempts: list[OverfitAttempt], sentence: str) -> None:
    found = OverfitCheck(rows=320, batch=64, counts=(32,) * 10, attempts=tuple(attempts), base_rate=0.1)
    verdict = overfit.judge(found)
    assert not verdict.good
    assert sentence in verdict.found


@pytest.mark.parametrize(
    ("made", "over"),
    [
        (attempt(0.1, 2.3, 0.12, 0.98, steps=400), False),  # nearly there: it gets four times as many updates
        (attempt(0.1, 2.3, 0.12, 0.98, steps=1600), False),  # the loop itself ends there
        (attempt(0.1, 2.3, 1.0, 0.6, steps=400), True),
        (attempt(0.1, 2.3, 1.0, 0.6, steps=390), False),
        (attempt(0.1, 2.3, 2.25, 0.1, steps=150), True),  # no better than a guess for long enough
        (attempt(10, 2.3, 30, 0.1, steps=60), True),
    ],
)
def test_an_attempt_to_memorise_ends_when_it_will_not_succeed(made: OverfitAttempt, over: bool) -> None:
    assert overfit.is_over(made, LN10) is over


@pytest.mark.parametrize(
    ("rows", "accuracy", "good"), [(320, 0.9, True), (320, 0.12, False), (320, 0.2, True), (100, 0.1, True)]
)
def test_what_is_memorised_must_hold_for_other_images(rows: int, accuracy: float, good: bool) -> None:
    """If the sample has enough images of each class; with fewer, nothing can be said yet."""
    attempts = (attempt(10, 2.3, 200, 0.1), attempt(0.1, 2.3, 0, 1.0))
    found = OverfitCheck(
        rows=rows, batch=64, counts=(rows // 10,) * 10, attempts=attempts, base_rate=10,
        validation_rows=360, validation_accuracy=accuracy, common=0.1,
    )  # fmt: skip
    verdict = overfit.judge(found)
    assert verdict.good is good
    assert (
        "The job's own learning rate of 10 is too high: the loss rose" if good else "labels look unrelated"
    ) in verdict.found


@pytest.mark.parametrize(("rows", "accuracy"), [(2, 1.0), (9, 1.0), (4, 0.5), (12, 0.5)])
def test_an_accuracy_on_a_few_images_is_not_called_a_guess(rows: int, accuracy: float) -> None:
    found = OverfitCheck(
        rows=40, batch=8, counts=(20, 20), attempts=(attempt(0.1, 2.3, 0, 1.0),), base_rate=0.1,
        validation_rows=rows, validation_accuracy=accuracy, common=0.5,
    )  # fmt: skip
    assert overfit.judge(found).good


# ── step 3 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def short_run(rate: float, end: float, steps: int = 100) -> RateTest:
    diverged = math.isinf(end)
    losses = tuple(2.4 + (0 if diverged else end - 2.4) * min(1, step / 80) for step in range(steps))
    return RateTest(
        rates=(rate,) * steps, losses=losses, diverged=diverged, guess=LN10, rows=1000, batch=50, began=0, ended=10
    )


def short_runs(ends: dict[float, float]) -> RateTests:
    return RateTests(tests=tuple(short_run(rate, end) for rate, end in ends.items()))


@pytest.mark.parametrize(
    ("ends", "chosen"),
    [
        ({0.001: 2.3, 0.003: 2.2, 0.01: 1.9, 0.03: 1.5, 0.1: 1.2, 0.3: 1.6}, (0.1, 0.03, 0.01)),
        ({0.001: 1.2, 0.003: 1.6, 0.01: math.inf}, (0.001, 0.0003, 0.0001)),
        ({0.01: 2.30, 0.1: 2.31}, ()),
        ({0.01: math.inf, 0.1: math.inf}, ()),
    ],
)
def test_the_rate_of_lowest_loss_is_searched_with_the_next_lower_ones(
    ends: dict[float, float], chosen: tuple[float, ...]
) -> None:
    found = rates.choose(short_runs(ends))
    assert found.rates == pytest.approx(chosen)
    assert found.verdict.good is bool(chosen)


@pytest.mark.parametrize(
    ("ends", "more"),
    [
        ({0.01: 1.9, 0.03: 1.5, 0.1: 1.2}, 0.3),
        ({0.01: 1.2, 0.03: 1.5, 0.1: 1.9}, 0.003),
        ({0.01: 1.9, 0.03: 1.2, 0.1: 1.5}, None),
        ({0.01: math.inf, 0.1: math.inf}, 0.003),
        ({10.0: 1.9, 30.0: 1.2}, None),
    ],
)
def test_a_best_rate_at_an_edge_asks_for_the_next_rate(ends: dict[float, float], more: float | None) -> None:
    assert rates.rate_beyond_edge(short_runs(ends).tests) == (more and pytest.approx(more))


@pytest.mark.parametrize(
    ("optimizer", "lowest", "highest"), [("sgd", 1e-4, 1e-1), ("adam", 1e-5, 1e-2), ("adadelta", 1e-2, 10.0)]
)
def test_the_rate_grid_lies_around_the_usual_rate_of_the_optimizer(
    optimizer: str, lowest: float, highest: float
) -> None:
    grid = rates.rate_grid(job(base__optimizer=optimizer).base)
    assert (grid[0], grid[-1], len(grid)) == (pytest.approx(lowest), pytest.approx(highest), 7)


def test_a_range_test_chooses_rates_below_its_lowest_loss() -> None:
    up = [1e-4 * 10 ** (4 * step / 99) for step in range(100)]
    losses = [2.4 - 1.2 * math.exp(-((math.log10(rate) + 1.0) ** 2) / 0.5) for rate in up]
    ranged = short_run(0.1, 1.0).model_copy(update={"rates": tuple(up), "losses": tuple(losses)})
    assert rates.choose(RateTests(tests=(ranged,))).rates == pytest.approx((0.03, 0.01, 0.003))
    flat = ranged.model_copy(update={"losses": (2.4,) * 100})
    assert not rates.choose(RateTests(tests=(flat,))).rates


# ── steps 4 to 7 ────────────────────────────────────────────────────────────────────────────────────────────────────

THREE = (0.1, 0.03, 0.01)
DECAYS = (1e-4, 1e-5, 0.0)


@pytest.mark.parametrize(
    ("budget", "trials", "epochs"), [(400, 9, 5), (100, 9, 2), (40, 9, 1), (30, 6, 1), (12, 3, 1), (4, 1, 1)]
)
def test_the_coarse_search_takes_a_quarter_of_the_budget(budget: float, trials: int, epochs: int) -> None:
    plan = coarse.plan_grid(THREE, DECAYS, budget)
    assert (len(plan.settings), plan.epochs) == (trials, epochs)
    assert plan.settings[0] == Hyperparameters(rate=0.1, decay=1e-4)


def trained(number: int, rate: float, decay: float, *values: float) -> TrialResult:
    return TrialResult(setting=Hyperparameters(rate=rate, decay=decay), folder=f"trials/{number:04}", values=values)


def round_of(number: int, *all_trained: TrialResult, diagnosis: str = "healthy", **overrides: Any) -> SearchRound:
    best = max(all_trained, key=lambda each: each.score("validation_accuracy"))
    return SearchRound(
        number=number, metric="validation_accuracy", validation_rows=1000, common=0.1, trained=all_trained,
        epochs=sum(len(each.values) for each in all_trained), updates=500, best=best.folder,
        diagnosis=RoundDiagnosis(name=diagnosis, title=diagnosis, evidence="seen", **overrides),
    )  # fmt: skip


COARSE = round_of(
    0,
    *(trained(3 * i + k, rate, decay, 0.5, 0.6 + (0.1 if (rate, decay) == (0.03, 1e-5) else 0))
      for i, rate in enumerate(THREE) for k, decay in enumerate(DECAYS)),
)  # fmt: skip


def test_an_accuracy_at_chance_level_ends_the_coarse_search() -> None:
    guess = round_of(0, trained(0, 0.1, 0, 0.1, 0.11).model_copy(update={"train": (0.9,)}))
    verdict = coarse.judge(guess)
    assert not verdict.good
    assert "labels look unrelated" in verdict.found
    assert "although it classifies 90.0% of the training images correctly" in verdict.found
    assert coarse.judge(guess.model_copy(update={"updates": 50})).good  # too early to tell
    assert not curve_review.judge(
        (COARSE.model_copy(update={"trained": ()}), guess.model_copy(update={"number": 1}))
    ).good
    broken = round_of(
        0, TrialResult(setting=Hyperparameters(rate=1, decay=0), folder="trials/0000", values=(), failed="no memory")
    )
    assert "Every trial failed; the first error: no memory" in coarse.judge(broken).found
    assert coarse.judge(COARSE).good


@pytest.mark.parametrize(("value", "rows"), [(1.0, 2), (0.5, 2), (0.5, 12), (0.75, 20)])
def test_few_validation_rows_are_no_ground_to_say_that_nothing_was_learned(value: float, rows: int) -> None:
    few = round_of(0, trained(0, 0.1, 0, 0.4, value)).model_copy(update={"validation_rows": rows, "common": 0.5})
    assert coarse.judge(few).good
    enough = round_of(0, trained(0, 0.1, 0, 0.4, 0.5)).model_copy(update={"validation_rows": 400, "common": 0.5})
    verdict = coarse.judge(enough)
    assert not verdict.good
    assert "classifies 50.0% ± 4.9 of the validation images correctly, no better than always" in verdict.found


def added_epochs(plan: TrainingPlan) -> int:
    """Passes over the training images that a plan adds to the coarse search."""
    done = {trial.setting: trial.epochs for trial in all_trials((COARSE,)).values()}
    return sum(max(0, plan.epochs - done.get(setting, 0)) for setting in plan.settings)


def test_the_refined_search_continues_the_best_and_adds_its_neighbours() -> None:
    plan = refine.plan_round((COARSE,), (), left=60)
    best = Hyperparameters(rate=0.03, decay=1e-5)
    assert plan.settings[0] == best
    assert set(plan.settings[1:5]) == {
        Hyperparameters(rate=0.06, decay=1e-5), Hyperparameters(rate=0.015, decay=1e-5),
        Hyperparameters(rate=0.03, decay=3e-5), Hyperparameters(rate=0.03, decay=3.3e-6),
    }  # fmt: skip
    assert plan.epochs > 2
    assert added_epochs(plan) <= 60
    wanted = Hyperparameters(rate=0.03, decay=1e-3)
    assert refine.plan_round((COARSE,), (wanted,), left=60).settings[1] == wanted


@pytest.mark.parametrize("left", [0, 1, 2, 5, 9, 30, 1000])
def test_no_round_costs_more_than_is_left(left: float) -> None:
    plan = refine.plan_round((COARSE,), (), left)
    assert added_epochs(plan) <= left
    assert bool(plan.settings) is (left >= 1)


def test_a_setting_keeps_its_trial_folder_and_new_ones_get_the_next() -> None:
    found = trial_folders((COARSE,), [Hyperparameters(rate=0.03, decay=1e-5), Hyperparameters(rate=0.06, decay=1e-5)])
    assert list(found) == ["trials/0004", "trials/0009"]


REFINED = (trained(4, 0.03, 1e-5, 0.5, 0.7, 0.8, 0.9), trained(9, 0.06, 1e-5, 0.5, 0.6, 0.7, 0.8))


@pytest.mark.parametrize(
    ("diagnosis", "best", "actions", "wanted"),
    [
        ("healthy", REFINED[0], ("done",), []),
        ("underfitting", REFINED[0], ("done",), []),
        ("plateau", REFINED[0], ("decay",), []),
        ("too_short", REFINED[0], ("longer",), []),
        ("overfitting", REFINED[0], ("regularise",), [Hyperparameters(rate=0.03, decay=5e-4)]),
        ("rate_too_low", REFINED[0], ("wider",), [Hyperparameters(rate=0.09, decay=1e-5)]),
        (
            "healthy",
            trained(0, 0.1, 1e-4, 0.99),
            ("wider",),
            [Hyperparameters(rate=0.3, decay=1e-4), Hyperparameters(rate=0.1, decay=3e-4)],
        ),
        ("healthy", trained(8, 0.01, 0.0, 0.99), ("wider",), [Hyperparameters(rate=0.003, decay=0.0)]),
    ],
)  # fmt: skip
def test_the_diagnosis_decides_what_comes_next(
    diagnosis: str, best: TrialResult, actions: tuple[str, ...], wanted: list[Hyperparameters]
) -> None:
    found = curve_review.review((COARSE, round_of(1, best, diagnosis=diagnosis)))
    assert found.actions == actions
    assert set(found.settings) == set(wanted)
    assert found.continues is (actions[0] not in ("done", "decay"))


def test_overfitting_adds_what_the_diagnosis_proposes() -> None:
    advice = {"loss.label_smoothing": 0.1, "optimizer.weight_decay": 5e-4}
    found = curve_review.review((COARSE, round_of(1, *REFINED, diagnosis="overfitting", overrides=advice)))
    assert found.settings[0].overrides() == {
        "optimizer.lr": 0.03, "optimizer.weight_decay": 5e-4, "loss.label_smoothing": 0.1,
    }  # fmt: skip
    assert "loss.label_smoothing 0.1" in found.verdict.decided


def test_the_search_ends_when_nothing_improves() -> None:
    again = round_of(2, trained(4, 0.03, 1e-5, 0.5, 0.7, 0.8, 0.9, 0.905), diagnosis="too_short")
    found = curve_review.review((COARSE, round_of(1, *REFINED, diagnosis="too_short"), again))
    assert not found.continues
    assert "within the noise of 0.9%: nothing improves any more" in found.verdict.decided
    better = round_of(2, trained(4, 0.03, 1e-5, 0.5, 0.7, 0.8, 0.9, 0.95), diagnosis="too_short")
    assert curve_review.review((COARSE, round_of(1, *REFINED, diagnosis="too_short"), better)).continues


def test_a_loss_is_better_when_it_is_lower() -> None:
    losses = round_of(0, trained(0, 0.1, 0, 0.9, 0.5), trained(1, 0.03, 0, 0.8, 0.7))
    assert best_trial((losses.model_copy(update={"metric": "validation_loss"}),)).setting.rate == 0.1
    assert best_trial((losses,)).setting.rate == 0.1
    assert best_trial((round_of(0, trained(0, 0.1, 0, 0.9), trained(1, 0.03, 0, 0.8)).model_copy(
        update={"metric": "validation_loss"}),)).setting.rate == 0.03  # fmt: skip


# ── the order ───────────────────────────────────────────────────────────────────────────────────────────────────────

MEMORISED = OverfitCheck(
    rows=320, batch=64, counts=(32,) * 10, attempts=(attempt(0.1, 2.3, 0, 1.0),), base_rate=0.1,
    validation_rows=360, validation_accuracy=0.9, common=0.1,
)  # fmt: skip
TESTED = short_runs({0.01: 1.9, 0.1: 1.2, 0.3: 1.6})


HEALTHY = RoundDiagnosis(name="healthy", title="Healthy", evidence="")
IN_FULL = FinalTraining(trained=REFINED[0], kept="trials/0004", schedule="cosine", value=0.9, diagnosis=HEALTHY)
SEARCHED = RecipeState(SOUND, MEMORISED, TESTED, (COARSE, round_of(1, *REFINED)))


@pytest.mark.parametrize(
    ("overrides", "state", "step"),
    [
        ({}, RecipeState(), "initial_loss"),
        ({}, RecipeState(SOUND), "overfit"),
        ({}, RecipeState(SOUND, MEMORISED), "learning_rate"),
        ({}, RecipeState(SOUND, MEMORISED, TESTED), "coarse"),
        ({}, RecipeState(SOUND, MEMORISED, TESTED, (COARSE,)), "refine"),
        ({}, SEARCHED, "last"),
        ({"recipe__learning_rates": [0.2]}, RecipeState(SOUND, MEMORISED), "coarse"),
        ({"recipe__start_at": "learning_rate"}, RecipeState(), "learning_rate"),
        ({"recipe__start_at": "coarse"}, RecipeState(), "coarse"),
    ],
)
def test_the_steps_follow_one_another(overrides: dict[str, Any], state: RecipeState, step: str) -> None:
    following = next_step(job(**overrides), state)
    assert isinstance(following, Step)
    assert following.id.name == step


@pytest.mark.parametrize(
    ("overrides", "state", "status"),
    [
        ({"recipe__stop_after": "overfit"}, RecipeState(SOUND, MEMORISED), "stopped"),
        ({"recipe__stop_after": "refine"}, SEARCHED, "stopped"),
        ({}, RecipeState(SOUND.model_copy(update={"trainable": 0})), "failed"),
        ({}, RecipeState(SOUND, MEMORISED, short_runs({0.1: 2.4})), "failed"),
        ({}, RecipeState(SOUND, MEMORISED, TESTED, (COARSE,), IN_FULL), "finished"),
    ],
)
def test_the_recipe_ends_where_it_should(overrides: dict[str, Any], state: RecipeState, status: str) -> None:
    following = next_step(job(**overrides), state)
    assert isinstance(following, End)
    assert following.status == status


def test_the_final_training_starts_at_a_higher_rate_and_takes_what_is_left() -> None:
    best, whole = best_trial(SEARCHED.rounds).setting, job().base.train.epochs
    step = next_step(job(), SEARCHED)
    assert isinstance(step, Step)
    plan = step.plan
    assert [setting.rate for setting in plan.settings] == pytest.approx([2 * best.rate], rel=0.2)
    assert plan.settings[0].decay == best.decay
    assert whole < plan.epochs <= 2 * whole
    assert spent_epochs(SEARCHED) + plan.epochs <= budget_epochs(job(), SEARCHED)


@pytest.mark.parametrize(
    ("left", "longer", "factors"),
    [(80, True, [1, 2]), (79, True, [2]), (19, True, [1]), (20, False, [1, 2]), (19, False, [1])],
)
def test_both_rates_are_trained_in_full_if_the_budget_is_enough(left: int, longer: bool, factors: list[int]) -> None:
    best = best_trial(SEARCHED.rounds).setting
    assert job().base.train.epochs == 20
    rates_of_them = [setting.rate for setting in final_settings(job(), SEARCHED, left, longer)]
    assert rates_of_them == pytest.approx([factor * best.rate for factor in factors], rel=0.2)


def test_every_final_training_is_reported_and_counted() -> None:
    kept, beside = trained(0, 0.3, 0, 0.97), trained(1, 0.1, 0, 0.95, 0.96)
    final = IN_FULL.model_copy(update={"trained": kept, "beside": (beside,), "kept": kept.folder, "value": 0.97})
    whole = replace(SEARCHED, final=final)
    found = judge_final(whole).found
    assert "reached 97.0% ± 1.1 with learning rate 0.3, weight decay 0 and a cosine schedule" in found
    assert "; with learning rate 0.1, weight decay 0: 96.0% ± 1.2; the best trial" in found
    assert spent_epochs(whole) == spent_epochs(SEARCHED) + 3


@pytest.mark.parametrize("value", [0.97, 0.5])
def test_the_reported_hyperparameters_are_those_of_the_model_that_is_kept(value: float) -> None:
    trial = best_trial(SEARCHED.rounds)
    in_full = TrialResult(
        folder="recipe/7-last", setting=Hyperparameters(rate=2 * trial.setting.rate, decay=0), values=(value,)
    )
    model = max(in_full, trial, key=lambda each: each.score("validation_accuracy"))
    final = IN_FULL.model_copy(
        update={"trained": in_full, "kept": model.folder, "value": model.score("validation_accuracy")}
    )
    shown = facts(job(), replace(SEARCHED, final=final))
    assert shown["best"] == f"{model.format_best('validation_accuracy', 1000)} ({model.setting})"


def test_a_time_becomes_epochs_at_the_measured_speed() -> None:
    # 300 steps in 30 s, one after the other: 0.1 s a step, 20 steps an epoch, so 2 s an epoch.
    one_by_one = RateTests(tests=tuple(
        test.model_copy(update={"began": 10.0 * i, "ended": 10.0 * i + 10}) for i, test in enumerate(TESTED.tests)
    ))  # fmt: skip
    assert budget_epochs(job(budget="2min"), RecipeState(rates=one_by_one, seconds=30)) == pytest.approx(60)
    side_by_side = RecipeState(rates=TESTED, seconds=10)
    assert budget_epochs(job(budget="2min"), side_by_side) == pytest.approx(180)
    both = job(budget={"epochs": 70, "minutes": 2})  # whatever is used up first
    assert budget_epochs(both, side_by_side) == 70
    assert budget_epochs(both, replace(side_by_side, seconds=115)) == pytest.approx(15 + 5 / (2 / 3))
    with pytest.raises(JobError, match="no step 3 measures how long an epoch takes"):
        check(job(budget="2min", recipe__learning_rates=[0.1]))


@pytest.mark.parametrize("text", ["100", "0ep", "-3ep", "5 weeks", 7, "ep"])
def test_a_wrong_budget_says_what_is_allowed(text: Any) -> None:
    with pytest.raises(
        JobError, match=r"is not a budget; allowed: epochs \(100ep\), a time \(90s, 30min, 2h, 1d\), or"
    ):
        job(budget=text)


@pytest.mark.parametrize("result", [SOUND.model_copy(update={"loss": math.nan}), MEMORISED, TESTED, COARSE], ids=repr)
def test_results_are_read_back_as_they_were_written(result: Result, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    result.write(folder)
    assert repr(type(result).read(folder)) == repr(result)


def test_a_damaged_result_says_so(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"rows": "many"}')
    with pytest.raises(RunError, match="is damaged"):
        InitialCheck.read(Folder.at(tmp_path))


@pytest.mark.parametrize(("value", "expected"), [(0.0316, 0.03), (0.0999, 0.1), (3e-7, 3e-7), (25, 20), (96, 100)])
def test_numbers_are_rounded_to_one_digit(value: float, expected: float) -> None:
    assert round_to_digit(value) == pytest.approx(expected)


def test_entropy_is_that_of_the_class_shares() -> None:
    assert entropy([1, 1]) == pytest.approx(math.log(2))
    assert entropy([3, 0]) == 0


def test_of_trials_with_equal_values_the_best_is_that_of_the_lower_loss() -> None:
    def of(number: int, *losses: float) -> TrialResult:
        setting = Hyperparameters(rate=0.1, decay=0.1 * number)
        return TrialResult(setting=setting, folder=f"trials/{number:04}", values=(0.9, 0.9, 0.5), losses=losses)

    older, unsure, sure, better = of(0), of(1, 0.6, 0.5, 0.01), of(2, 0.3, 0.4, 0.9), of(3, 0.8, 0.8, 0.8)
    better = better.model_copy(update={"values": (0.91, 0.1, 0.1)})
    assert ranked([older, unsure, sure, better], "validation_accuracy") == [better, sure, unsure, older]
