"""Schedules are pure functions of the step: the numbers they must give, and what does not fit a run is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import optim
from torch.optim import lr_scheduler

from lehr.durations import Duration, RunLength
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.schedules import SCHEDULES, BaseSchedule, linear_rule

LENGTH = RunLength(steps_per_epoch=10, total_steps=100)


def schedule(name: str, **options: Any) -> BaseSchedule:
    """The schedule as a job file sets it."""
    job = from_dict({"schedule": {"name": name, **options}})
    assert isinstance(job, TrainJob)
    return job.schedule


def rates(said: BaseSchedule, length: RunLength = LENGTH) -> list[float]:
    factor = said.bind(length)
    return [factor(step) for step in range(length.total_steps)]


# Each row: (schedule, options, {step: factor on lr}) in a run of 10 epochs of 10 steps, computed by hand.
BY_HAND: list[tuple[str, dict[str, Any], dict[int, float]]] = [
    ("constant", {}, {0: 1, 50: 1, 99: 1}),
    ("constant", {"warmup": "1ep"}, {0: 0.1, 4: 0.5, 9: 1, 10: 1, 99: 1}),
    ("constant", {"cooldown": "20%"}, {0: 1, 80: 1, 90: 0.5, 99: 0.05}),
    ("constant", {"warmup": "4step", "cooldown": "4step"}, {0: 0.25, 3: 1, 96: 1, 97: 0.75, 99: 0.25}),
    ("step", {}, {0: 1, 49: 1, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}),
    ("step", {"every": "3ep", "gamma": 0.5}, {0: 1, 29: 1, 30: 0.5, 59: 0.5, 60: 0.25, 90: 0.125}),
    ("step", {"milestones": ["3ep", "60step", "80%"]}, {29: 1, 30: 0.1, 60: 0.01, 79: 0.01, 80: 0.001}),
    ("step", {"warmup": "2ep", "milestones": ["1ep"], "gamma": 0.5}, {9: 0.5, 10: 0.275, 19: 0.5, 20: 0.5}),
    ("cosine", {}, {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2}),
    ("cosine", {"end_factor": 0.2}, {0: 1, 50: 0.6}),
    ("cosine", {"warmup": "20step"}, {0: 0.05, 19: 1, 20: 1, 60: 0.5}),
    ("cosine", {"cooldown": "50step"}, {50: 0.5, 75: 0.5 * (1 - math.sqrt(0.5)) / 2}),
    ("linear", {}, {0: 1, 25: 0.75, 99: 0.01}),
    ("linear", {"end_factor": 0.5, "warmup": "20step"}, {9: 0.5, 20: 1, 60: 0.75}),
    ("inverse_sqrt", {}, {0: 1, 30: 0.5, 80: 1 / 3}),
    ("inverse_sqrt", {"timescale": "1step"}, {0: 1, 3: 0.5, 99: 0.1}),
    ("inverse_sqrt", {"warmup": "2ep"}, {0: 0.05, 20: 1, 45: math.sqrt(20 / 45), 80: 0.5}),  # √(w / t)
    ("polynomial", {}, {0: 1, 50: 0.25, 90: 0.01}),
    ("polynomial", {"power": 3, "end_factor": 0.2}, {0: 1, 50: 0.3}),
    ("exponential", {}, {0: 1, 50: 0.1}),
    ("exponential", {"gamma": 0.5, "every": "2ep", "warmup": "1ep"}, {10: 1, 30: 0.5, 50: 0.25, 20: math.sqrt(0.5)}),
    (
        "cyclic",
        {},
        {0: 1, 25: 1, 50: 1, 75: 1, 5: (1 + math.cos(math.pi / 5)) / 2, 80: (1 + math.cos(math.pi / 5)) / 2},
    ),
    ("cyclic", {"cycles": 2, "end_factor": 0.2}, {0: 1, 25: 0.6, 50: 1, 75: 0.6}),
    ("cyclic", {"cycles": 3, "growth": 2, "warmup": "30step"}, {29: 1, 30: 1, 35: 0.5, 40: 1, 50: 0.5, 60: 1, 80: 0.5}),
    ("cyclic", {"length": "2ep", "growth": 4}, {0: 1, 10: 0.5, 20: 1, 60: 0.5}),
    ("one_cycle", {"rise": "11step", "start_factor": 0.2, "end_factor": 0.1}, {0: 0.2, 5: 0.6, 10: 1, 99: 0.1}),
    (
        "one_cycle",
        {"rise": "10step", "shape": "linear", "start_factor": 0.1, "end_factor": 0},
        {0: 0.1, 3: 0.4, 9: 1, 54: 0.5, 99: 0},
    ),
    ("wsd", {}, {0: 1, 79: 1, 80: 1, 90: 0.5, 99: 0.05}),
    ("wsd", {"warmup": "1ep", "decay": "4ep", "end_factor": 0.2}, {4: 0.5, 60: 1, 80: 0.6}),
    ("wsd", {"decay": "40step", "shape": "sqrt"}, {60: 1, 70: 0.5}),
    ("wsd", {"decay": "40step", "shape": "cosine"}, {60: 1, 80: 0.5}),
    ("wsd", {"decay": "0step"}, {0: 1, 99: 1}),
]


@pytest.mark.parametrize(
    ("name", "options", "expected"), BY_HAND, ids=lambda value: value if type(value) is str else ""
)
def test_the_rate_is_what_the_formula_says(name: str, options: dict[str, Any], expected: dict[int, float]) -> None:
    factor = schedule(name, **options).bind(LENGTH)
    assert {step: factor(step) for step in expected} == pytest.approx(expected, abs=1e-12)


def test_every_schedule_is_in_the_table() -> None:
    assert {name for name, _, _ in BY_HAND} == set(SCHEDULES)


# Each row: (schedule, options, the same in torch).
IN_TORCH: list[tuple[str, dict[str, Any], Any]] = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("constant", {"warmup": "20step"}, lambda o: lr_scheduler.LinearLR(o, 1 / 20, 1.0, total_iters=19)),
    ("step", {"every": "30step", "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 30, gamma=0.3)),
    ("step", {"milestones": ["2ep", "7ep"]}, lambda o: lr_scheduler.MultiStepLR(o, [20, 70])),
    ("cosine", {"end_factor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 100, eta_min=0.05)),
    ("linear", {"end_factor": 0.1}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=100)),
    ("polynomial", {"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, 100, power=0.9)),
    ("polynomial", {}, lambda o: lr_scheduler.PolynomialLR(o, 100, power=2.0)),
    ("exponential", {"gamma": 0.9, "every": "1step"}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    (
        "cyclic",
        {"cycles": 4, "end_factor": 0.1},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 25, 1, eta_min=0.05),
    ),
    ("cyclic", {"length": "20step", "growth": 4}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 20, 4)),
    ("one_cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, 0.5, 100)),
    (
        "one_cycle",
        {"shape": "linear", "rise": "45%", "start_factor": 0.1, "end_factor": 0.001},
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.5, 100, pct_start=0.45, anneal_strategy="linear", div_factor=10, final_div_factor=100
        ),
    ),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("name", "options", "build"), IN_TORCH, ids=lambda value: value if type(value) is str else "")
def test_a_whole_run_has_the_rates_of_torch(name: str, options: dict[str, Any], build: Any) -> None:
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = build(optimizer)
    expected = []
    for step in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 99:
            theirs.step()
    assert [0.5 * rate for rate in rates(schedule(name, **options))] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("total", [7, 10, 37, 101, 113])
@pytest.mark.parametrize("rise", ["30%", "33%", "50%"])
def test_one_cycle_rises_in_whole_steps_and_is_else_that_of_torch(rise: str, total: int) -> None:
    """The convention of every duration: torch, given the share of those whole steps, has the same rates."""
    length = RunLength(total, total)
    steps = Duration.parse(rise).steps(length)
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.OneCycleLR(optimizer, 1.0, total, pct_start=steps / total)
    expected = []
    for step in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            theirs.step()
    assert rates(schedule("one_cycle", rise=rise), length) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("total", "cycles"), [(100, 4), (100, 3), (101, 5), (7, 2), (5, 5), (6, 1)])
def test_equal_cycles_are_those_of_snapshot_ensembles(total: int, cycles: int) -> None:
    """Equation 2 of Huang et al., 2017, verbatim; their t counts from 1."""
    cycle = math.ceil(total / cycles)
    expected = [0.5 * (math.cos(math.pi * ((t - 1) % cycle) / cycle) + 1) for t in range(1, total + 1)]
    length, said = RunLength(total, total), schedule("cyclic", cycles=cycles)
    assert rates(said, length) == pytest.approx(expected, abs=1e-12)
    ends = said.cycle_ends(length)
    assert len(ends) == cycles
    assert ends[-1] == total
    # A snapshot is taken at the end of a cycle: the next step starts at the full rate again.
    assert all(rates(said, length)[end] == 1 for end in ends[:-1])


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, [25, 50, 75, 100]),
        ({"cycles": 1}, [100]),
        ({"warmup": "1ep", "cycles": 2}, [55, 100]),
        ({"cycles": 2, "growth": 3}, [25, 100]),
        ({"cycles": 3, "growth": 1.5}, [22, 54, 100]),  # 21.05, 31.6 and what is left
        ({"length": "20step"}, [20, 40, 60, 80, 100]),
        ({"length": "2ep", "growth": 4}, [20, 100]),
        ({"length": "20step", "growth": 1.5, "warmup": "5step"}, [25, 55, 100]),
    ],
)
def test_the_ends_of_cycles_are_known(options: dict[str, Any], ends: list[int]) -> None:
    assert schedule("cyclic", **options).cycle_ends(LENGTH) == ends
    assert schedule("cosine").cycle_ends(LENGTH) == [100]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "cosine",
            {"warmup": "110step"},
            "warmup 110step is 110 steps, longer than the run of 100 steps; allowed: less, such as schedule.warmup=10%",
        ),
        (
            "constant",
            {"warmup": "100%"},
            "warmup 100% is 100 steps, as long as the run of 100 steps; allowed: less, such as schedule.warmup=10%",
        ),
        (
            "linear",
            {"warmup": "60%", "cooldown": "5ep"},
            "warmup 60% is 60 steps and cooldown 5ep is 50, longer than the run of 100 steps; allowed: less, such as "
            "schedule.warmup=10% schedule.cooldown=10%",
        ),
        ("step", {"every": "20ep"}, "every 20ep is 200 steps of 100; allowed: more than 0 and less than the run"),
        ("step", {"every": "0ep"}, "every 0ep is 0 steps of 100; allowed: more than 0 and less than the run"),
        (
            "step",
            {"milestones": ["5ep", "10ep"]},
            "milestone 10ep is 100 steps of 100; allowed: more than 0 and less than the run",
        ),
        ("step", {"milestones": ["5ep", "50step"]}, "milestone 50step is step 50, which is not after 5ep, step 50"),
        ("step", {"milestones": ["50%", "3ep"]}, "milestone 3ep is step 30, which is not after 50%, step 50"),
        ("inverse_sqrt", {"timescale": "0step"}, "timescale 0step rounds to 0 steps; allowed: one step or more"),
        ("inverse_sqrt", {"timescale": "0.01ep"}, "timescale 0.01ep rounds to 0 steps; allowed: one step or more"),
        ("exponential", {"every": "0step"}, "every 0step rounds to 0 steps; allowed: one step or more"),
        ("cyclic", {"cycles": 101}, "101 cycles of whole steps do not fit into 100 steps; allowed: fewer of them"),
        ("cyclic", {"cycles": 60}, "60 cycles of whole steps do not fit into 100 steps; allowed: fewer of them"),
        ("cyclic", {"length": "3ep"}, "the run of 100 steps ends within a cycle; allowed: a run of 90 or 120 steps"),
        ("cyclic", {"length": "20ep"}, "the run of 100 steps ends within a cycle; allowed: a run of 200 steps"),
        ("one_cycle", {"rise": "0step"}, "rise 0step is 0 steps of 100; allowed: more than 0 and less than the run"),
        ("one_cycle", {"rise": "100%"}, "rise 100% is 100 steps of 100; allowed: more than 0 and less than the run"),
        (
            "wsd",
            {"decay": "110step"},
            "decay 110step is 110 steps, longer than the run of 100 steps; allowed: less, such as schedule.decay=20%",
        ),
        (
            "wsd",
            {"decay": "6ep", "warmup": "5ep"},
            "decay 6ep is 60 steps and warmup 5ep is 50, longer than the run of 100 steps; allowed: less, such as "
            "schedule.decay=20%",
        ),
    ],
)
def test_options_that_do_not_fit_the_run_are_refused_before_it_starts(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError) as caught:
        schedule(name, **options).bind(LENGTH)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "step",
            {"every": "1ep", "milestones": ["5ep"]},
            "schedule: every and milestones exclude each other; allowed: one of them",
        ),
        (
            "cyclic",
            {"cycles": 2, "length": "5ep"},
            "schedule: cycles and length exclude each other; allowed: one of them",
        ),
        (
            "wsd",
            {"shape": "sqr"},
            'schedule.shape: "sqr" is not a shape; did you mean sqrt? allowed: linear, cosine, sqrt',
        ),
        ("polynomial", {"power": 0}, "schedule.power: 0 is too small; allowed: a number above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        schedule(name, **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "options", "expected"), BY_HAND, ids=lambda value: value if type(value) is str else ""
)
def test_a_schedule_is_written_down_and_read_back_equal(name: str, options: dict[str, Any], expected: Any) -> None:
    job = from_dict({"schedule": {"name": name, **options}})
    assert from_dict(to_dict(job)) == job


ABSOLUTE: list[tuple[str, dict[str, Any]]] = [
    ("constant", {"warmup": "1ep"}),
    ("step", {"milestones": ["3ep", "60step"], "warmup": "1ep"}),
    ("step", {"every": "3ep"}),
    ("exponential", {"gamma": 0.9, "every": "1ep", "warmup": "5step"}),
    ("inverse_sqrt", {"warmup": "1ep"}),
    ("inverse_sqrt", {}),
    ("cyclic", {"length": "2ep"}),
]


@pytest.mark.parametrize(("name", "options"), ABSOLUTE)
def test_a_schedule_in_epochs_and_steps_keeps_its_rate_when_the_run_gets_longer(
    name: str, options: dict[str, Any]
) -> None:
    said = schedule(name, **options)
    assert rates(said) == rates(said, RunLength(10, 200))[:100]


def test_wsd_keeps_its_rate_until_the_decay_begins() -> None:
    said = schedule("wsd", warmup="1ep", decay="2ep")
    assert rates(said)[:80] == rates(said, RunLength(10, 200))[:80]
    assert rates(said)[81] != rates(said, RunLength(10, 200))[81]


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    per_epoch=st.integers(1, 50),
    epochs=st.integers(12, 40),
    warmup=st.sampled_from(["0step", "1step", "1ep", "10%"]),
    cooldown=st.sampled_from(["0step", "1step", "10%"]),
)
def test_rates_stay_between_zero_and_lr(name: str, per_epoch: int, epochs: int, warmup: str, cooldown: str) -> None:
    found = rates(schedule(name, warmup=warmup, cooldown=cooldown), RunLength(per_epoch, per_epoch * epochs))
    assert all(0 <= rate <= 1 for rate in found)
    assert max(found) > 0.1


def test_the_linear_rule_rises_from_one_to_the_ratio_of_the_batches() -> None:
    """Goyal et al., 2017: 8,192 rows at 0.1 × 32 after a warmup from 0.1."""
    scale = linear_rule(batch=8192, base_batch=256, warmup=10)
    assert [scale(step) for step in (0, 5, 10, 1000)] == [1, 16.5, 32, 32]
    smaller = linear_rule(batch=128, base_batch=256, warmup=10)
    assert [smaller(step) for step in (0, 5, 10)] == [0.5, 0.5, 0.5]
