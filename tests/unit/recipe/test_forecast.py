"""How long a recipe still takes: told from the speed of its trainings and from how often processes start for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.recipe.test_promise import SOUND, check, job

from lehr.recipe.forecast import RecipePace, ToCome, estimate, to_come
from lehr.recipe.planner import Step
from lehr.recipe.rates import RateTests
from lehr.recipe.state import RecipeState, round_id
from lehr.recipe.steps import StepId
from lehr.recipe.trial_results import Hyperparameters, TrainingPlan
from lehr.trials.pace import END_SECONDS

TESTING = RecipeState(initial=SOUND, overfit=check(training_rows=1438))
SEARCHING = replace(TESTING, rates=RateTests(own=0.1, rows=1438, batch=64))
RATES, LAST = Step(StepId("learning_rate")), Step(StepId("last"))


class Simulated(RecipePace):
    """Steps on a clock of their own."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(clock=lambda: self.now)

    def step(self, start: float, epochs: float, each: float, end: float = 0.0) -> None:
        times = self.begin()
        self.now += start
        times.trained(self.now, self.now + epochs * each, epochs)
        self.now += epochs * each + end


def recipe(**changes: Any) -> Any:
    return job(**{"budget": {"epochs": 60}, **changes})


def test_what_it_takes_to_start_a_step_is_no_part_of_an_epoch() -> None:
    """The tests of learning rates took 8 s, 7 of them to start: a recipe of 47 s was told to take 110."""
    pace = Simulated()
    pace.step(start=7, epochs=10, each=0.1)
    assert pace.seconds_per_epoch == pytest.approx(0.1)
    assert pace.seconds_around == pytest.approx(7)
    assert pace.left(0, ToCome(2, 30)) == pytest.approx(2 * 7 + 30 * 0.1 + END_SECONDS)


def test_a_step_that_starts_counts_what_starting_still_takes() -> None:
    pace = Simulated()
    pace.step(start=7, epochs=10, each=0.1, end=1)
    pace.begin()
    pace.now += 5
    assert pace.left(10, ToCome()) == pytest.approx(8 - 5 + 1 + END_SECONDS)


@pytest.mark.parametrize(("step", "state", "takes"), [(RATES, TESTING, 12.0), (LAST, SEARCHING, 20.0)])
def test_what_is_to_come_spends_the_budget_and_never_more(step: Step, state: RecipeState, takes: float) -> None:
    found = to_come(recipe(base={"train": {"epochs": 20, "batch_size": 64}}), state, step, takes)
    if step is LAST:
        assert found == ToCome()
        return
    left = 60 - 5 - takes
    assert 0.8 * left <= found.epochs <= left
    assert 3 <= found.steps <= 8, "a coarse search, rounds, and the final training"


def test_a_search_that_finds_nothing_more_is_the_least_that_comes() -> None:
    plan = TrainingPlan((Hyperparameters(rate=0.1, decay=0), Hyperparameters(rate=0.03, decay=0)), 2)
    step, made = Step(round_id(0), plan), recipe(base={"train": {"epochs": 20, "batch_size": 64}})
    all_of_it, least = (to_come(made, SEARCHING, step, 4.0, most) for most in (None, 1))
    assert least.steps == 2
    assert all_of_it.steps > least.steps
    pace = Simulated()
    pace.step(start=5, epochs=4, each=0.1)
    left, between = estimate(pace, made, SEARCHING, step, 4.0, 0.0)
    assert left
    assert between
    low, high = between
    assert low
    assert high
    assert low <= left <= high


def test_before_anything_was_measured_only_a_budget_of_time_is_known() -> None:
    pace = Simulated()
    pace.begin()
    assert estimate(pace, recipe(), TESTING, RATES, 0.0, 0.0) == (None, None)
    timed = recipe(budget={"minutes": 2})
    assert estimate(pace, timed, replace(TESTING, seconds=30.0), RATES, 0.0, 0.0) == (None, (None, 90.0))


def test_a_budget_of_time_is_never_told_as_more_than_it_is() -> None:
    pace = Simulated()
    pace.step(start=5, epochs=2, each=30.0)
    left, between = estimate(pace, recipe(budget={"minutes": 2}), replace(TESTING, seconds=60.0), RATES, 4.0, 2.0)
    assert left == 60.0
    assert between is None or between[1] == 60.0
