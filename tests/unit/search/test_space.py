"""A space draws values that are valid for its job, the same for the same seed, and only those that apply."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lehr.job import from_dict, to_dict
from lehr.job.search import Dimension, SearchJob
from lehr.search.combinations import grid_combinations
from lehr.search.formats import format_value, short_paths
from lehr.search.samplers import PastTrial, quasi_random_values, random_values, tpe_values
from lehr.search.space import Space, condition_holds, position_of, value_at

SPACE: dict[str, Any] = {
    "optimizer.lr": {"log_uniform": [1e-4, 1]},
    "optimizer.name": {"choice": ["sgd", "adam"]},
    "optimizer.momentum": {"uniform": [0.5, 0.99], "when": {"optimizer.name": "sgd"}},
    "model.width": {"int": [4, 16]},
    "schedule": {"choice": ["cosine", {"name": "step", "every": "30%"}]},
}


def search(space: dict[str, Any] = SPACE, **job: Any) -> SearchJob:
    made = from_dict({"kind": "search", "space": space, **job})
    assert isinstance(made, SearchJob)
    return made


@pytest.mark.parametrize(
    ("dimension", "share", "value"),
    [
        ({"uniform": [1, 3]}, 0.5, 2.0),
        ({"log_uniform": [0.01, 1]}, 0.5, 0.1),
        ({"log_uniform": [0.01, 1]}, 0.999999, 1.0),
        ({"int": [1, 4]}, 0.0, 1),
        ({"int": [1, 4]}, 0.999, 4),
        ({"int": [1, 4.0]}, 0.999, 4),
        ({"int": [8, 64], "step": 8}, 0.13, 16),
        ({"int": [8, 63], "step": 8}, 0.999, 56),
        ({"uniform": [0.99991, 0.99999]}, 0.5, 0.99995),
        ({"choice": ["a", "b"]}, 0.49, "a"),
        ({"choice": ["a", "b"]}, 0.5, "b"),
        ({"grid": [1, 2, 3]}, 0.999, 3),
    ],
)
def test_each_point_of_the_unit_interval_is_a_value(dimension: dict[str, Any], share: float, value: Any) -> None:
    made = Dimension.model_validate(dimension)
    assert value_at(made, share) == pytest.approx(value) if isinstance(value, float) else value_at(made, share) == value


def test_the_position_of_a_value_is_where_it_was_drawn() -> None:
    for dimension in (Dimension(uniform=(2.0, 8.0)), Dimension(log_uniform=(1e-3, 10.0))):
        assert position_of(dimension, value_at(dimension, 0.25)) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("draw", [random_values, quasi_random_values])
def test_draws_depend_on_the_seed_and_the_number_alone(draw: Any) -> None:
    space = Space(search())
    assert [draw(space, 3, n) for n in (5, 0, 2)] == [draw(Space(search()), 3, n) for n in (5, 0, 2)]
    assert draw(space, 3, 5) != draw(space, 4, 5)
    assert draw(space, 3, 5) != draw(space, 3, 6)


@pytest.mark.parametrize("method", ["random", "quasi_random", "tpe"])
def test_whole_numbers_are_drawn_as_such_and_only_those_that_the_steps_reach(method: str) -> None:
    space = Space(search({"model.width": {"int": [8, 60], "step": 8}, "train.epochs": {"int": [1, 3]}}, method=method))
    past = [PastTrial({"model.width": 8 * n, "train.epochs": 1}, "finished", (n / 10,)) for n in (1, 2, 3, 4, 5) * 2]
    draws = {
        "random": lambda n: random_values(space, 0, n),
        "quasi_random": lambda n: quasi_random_values(space, 0, n),
        "tpe": lambda n: tpe_values(space, 0, n, past),
    }
    drawn = [draws[method](n) for n in range(12 if method == "tpe" else 60)]
    jobs = [space.trial(values, "trial")[0] for values in drawn]
    widths = {job.model.options["width"] for job in jobs}
    assert widths <= {8, 16, 24, 32, 40, 48, 56}
    assert method == "tpe" or widths == {8, 16, 24, 32, 40, 48, 56}
    assert all(type(job.model.options["width"]) is int and type(job.train.epochs) is int for job in jobs)


def test_a_space_of_whole_numbers_is_written_down_and_read_back() -> None:
    job = search({"model.width": {"int": [8, 64], "step": 8}})
    assert from_dict(to_dict(job)) == job
    assert to_dict(job)["space"]["model.width"]["int"] == [8, 64]


@pytest.mark.parametrize("ends", [[0.99991, 0.99999], [1e-7, 3e-7], [-0.001, 0.001], [1000.0, 1000.5], [0, 1e-12]])
def test_draws_tell_values_of_a_narrow_range_apart(ends: list[float]) -> None:
    space = Space(search({"optimizer.momentum": {"uniform": ends}}))
    drawn = [random_values(space, 0, n)["optimizer.momentum"] for n in range(100)]
    assert len(set(drawn)) > 90
    assert all(ends[0] <= value <= ends[1] for value in drawn)
    assert len({format_value(value) for value in drawn}) > 90


def test_adding_a_dimension_does_not_change_the_draws_of_the_others() -> None:
    wider = search({"train.batch_size": [32, 64], **SPACE})
    drawn, more = random_values(Space(search()), 0, 7), random_values(Space(wider), 0, 7)
    assert {path: more[path] for path in drawn} == drawn


def test_random_draws_are_uniform_on_a_log_scale() -> None:
    space = Space(search())
    logs = sorted(math.log10(random_values(space, 0, n)["optimizer.lr"]) for n in range(400))
    assert all(abs(log - (-4 + 4 * (i + 0.5) / 400)) < 0.35 for i, log in enumerate(logs))


def test_quasi_random_draws_leave_no_gap() -> None:
    space = Space(search({"optimizer.lr": {"uniform": [0.1, 1.1]}, "optimizer.weight_decay": {"uniform": [0, 1]}}))
    drawn = [quasi_random_values(space, 1, n)["optimizer.lr"] - 0.1 for n in range(16)]
    assert {min(int(16 * share), 15) for share in drawn} == set(range(16))


def test_a_value_whose_condition_does_not_hold_is_left_out() -> None:
    space = Space(search())
    for number in range(20):
        job, active = space.trial(random_values(space, 0, number), "trials/0000")
        assert ("optimizer.momentum" in active) == (job.optimizer.name == "sgd")
        assert ("momentum" in job.optimizer.options) == (job.optimizer.name == "sgd")


@pytest.mark.parametrize(
    ("when", "true"),
    [
        ({"optimizer.name": "sgd"}, True),
        ({"optimizer": "sgd"}, True),
        ({"optimizer.name": ["adam", "sgd"]}, True),
        ({"optimizer.name": "adam"}, False),
        ({"optimizer.name": "sgd", "train.epochs": 3}, False),
        ({"no.such": 1}, False),
    ],
)
def test_conditions(when: dict[str, Any], true: bool) -> None:
    assert condition_holds(when, {"optimizer": {"name": "sgd"}, "train": {"epochs": 2}}) is true


def test_a_grid_holds_every_combination_once_after_conditions_are_applied() -> None:
    space = search(
        {
            "optimizer.name": ["sgd", "adam"],
            "optimizer.momentum": {"grid": [0.5, 0.9], "when": {"optimizer.name": "sgd"}},
            "optimizer.lr": {"log_uniform": [0.01, 1], "points": 3},
        }
    )
    found = [Space(space).trial(values, "t")[1] for values in grid_combinations(Space(space))]
    assert len(found) == 2 * 3 + 3
    assert {each["optimizer.lr"] for each in found} == {0.01, 0.1, 1.0}


def test_whole_sections_are_values() -> None:
    space = Space(search({"schedule": {"choice": ["cosine", {"name": "step", "every": "30%"}]}}))
    names = {space.trial(random_values(space, 0, number), "t")[0].schedule.name for number in range(12)}
    assert names == {"cosine", "step"}
    assert format_value({"name": "step", "every": "30%"}) == "step (every 30%)"


def test_tpe_searches_where_results_were_good_and_is_reproducible() -> None:
    space = Space(search({"optimizer.lr": {"log_uniform": [1e-4, 1]}, "optimizer.weight_decay": {"uniform": [0, 1]}}))

    def past(number: int) -> PastTrial:
        values = random_values(space, 0, number)
        return PastTrial(values, "finished", (1 - abs(math.log10(values["optimizer.lr"]) + 1) / 3,))

    known = [past(number) for number in range(30)]
    known += [
        PastTrial(random_values(space, 0, 30), "failed", ()),
        PastTrial(random_values(space, 0, 31), "running", ()),
    ]
    asked = [tpe_values(space, 0, number, known)["optimizer.lr"] for number in range(32, 48)]
    assert asked == [tpe_values(space, 0, number, known)["optimizer.lr"] for number in range(32, 48)]
    near = sum(0.02 < lr < 0.5 for lr in asked)
    assert near >= 10  # 5.6 of 16 at random


def test_a_field_is_shown_by_the_last_parts_that_tell_it_from_the_others() -> None:
    paths = ["optimizer.lr", "optimizer.name", "model.name", "schedule", "seed"]
    assert short_paths(paths) == ["lr", "optimizer.name", "model.name", "schedule", "seed"]
    assert short_paths(["name", "a.name"]) == ["name", "a.name"]
