"""Each rule finds its own condition on a synthetic curve, and none on a healthy one.

`tests/benchmarks/diagnosis.py` shows that the rules are right on curves of real training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from lehr.curves.causes import not_as_good_as_linear
from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.curves.rules import CAUSES, FATAL, LAST_RESORT, RULES
from lehr.curves.thresholds import Thresholds
from lehr.job import from_dict, parse_overrides
from lehr.runs import DataSurvey

from .curves import made

GUESS = math.log(10)


def falling(p: float) -> float:
    return 0.05 + 2.25 * math.exp(-8 * p)


def rising(p: float) -> float:
    return 0.98 - 0.9 * math.exp(-12 * p)


def climbing(p: float) -> float:
    return 0.2 + 0.6 * p


def thrown_up(p: float) -> float:
    return GUESS + 40 * math.exp(-20 * p) * (p > 0)


def step_down(p: float) -> float:
    return 0.1 if p < 0.1 else 0.001


CASES: dict[str, Callable[[], Curves]] = {
    "diverged": lambda: made(
        lambda p: GUESS + 40 * math.exp(-20 * p) * (p > 0), validation=0.1, train=0.1, update=0.05
    ),
    "not_learning": lambda: made(GUESS, validation=0.1, train=0.1, update=1e-10, validation_loss=GUESS),
    "at_chance": lambda: made(lambda p: GUESS - 0.1 * p, validation=0.1, train=0.11, validation_loss=GUESS),
    "bad_initialization": lambda: made(
        lambda p: GUESS if p < 0.3 else GUESS * math.exp(-12 * (p - 0.3)),
        update=0.004,
        gradient_norm=0.1,
        train=0.6,
        validation=0.58,
    ),
    "rate_too_low": lambda: made(lambda p: 2.4 - 0.4 * p, update=1e-4, train=0.4, validation=lambda p: 0.1 + 0.3 * p),
    "decayed_too_early": lambda: made(
        lambda p: 2.3 - 10 * min(p, 0.1) - 0.05 * max(p - 0.1, 0), rate=step_down, train=0.6, validation=0.58
    ),
    "oscillating": lambda: made(falling, noise=0.5, train=0.9, validation=0.88, update=0.006),
    "plateau": lambda: made(lambda p: max(falling(p), 1.2), update=0.02, train=0.6, validation=0.58),
    "overfitting": lambda: made(falling, train=1.0, validation=0.8),
    "too_short": lambda: made(
        lambda p: 2.3 - 1.7 * p,
        train=lambda p: 0.2 + 0.6 * p,
        validation=lambda p: 0.2 + 0.6 * p,
        validation_loss=lambda p: 2.3 - 1.6 * p,
    ),
    "underfitting": lambda: made(lambda p: max(falling(p), 2.0), train=0.25, validation=0.25, update=0.003),
    "healthy": lambda: made(falling, train=rising, validation=rising),
    "unclear": lambda: made(falling, train=0.45, validation=0.42),
    "too_little": lambda: made(falling, epochs=2, train=rising, validation=rising),
}


@pytest.mark.parametrize("name", CASES)
def test_each_condition_is_found_first(name: str) -> None:
    assert diagnose(CASES[name]()).first.name == name


def test_every_rule_has_a_case() -> None:
    rules = {*FATAL, *RULES, *LAST_RESORT} - {*CAUSES, not_as_good_as_linear}  # their cases are in test_causes.py
    assert len(rules) == len(CASES) - 3  # healthy, unclear and too_little are not rules


@pytest.mark.parametrize("name", sorted(set(CASES) - {"healthy"}))
def test_the_advice_can_be_pasted_into_a_command(name: str) -> None:
    """The overrides as typed make a job that lehr accepts, and that differs from the one that was run."""
    import shlex

    first = diagnose(CASES[name]()).first
    typed = shlex.split(first.command)
    assert typed
    before = {"kind": "train", "train": {"epochs": 5}}
    assert parse_overrides(typed) == dict(first.overrides)
    assert from_dict(before, typed) != from_dict(before)


def test_every_finding_has_numbers_and_a_rule() -> None:
    for name, make in CASES.items():
        finding = diagnose(make()).first
        assert any(letter.isdigit() for letter in finding.evidence), name
        assert "nan" not in finding.evidence, name
        assert finding.rule
        assert finding.confidence in ("high", "medium", "low")


def test_a_loss_of_nan_names_its_step() -> None:
    curves = made(lambda p: GUESS if p < 0.5 else math.nan, epochs=4)
    first = diagnose(curves).first
    assert first.name == "diverged"
    assert "step 40" in first.evidence
    assert first.overrides["optimizer.lr"] < 0.1


def test_a_run_that_died_before_its_first_epoch_is_still_diagnosed() -> None:
    whole = made(lambda p: 2.3 if p < 0.02 else math.inf)
    cut = {name: values[:12] for name, values in whole.steps.items()}
    none = {name: values[:0] for name, values in whole.epochs.items()}
    assert diagnose(replace(whole, steps=cut, epochs=none)).first.name == "diverged"


def test_an_empty_record_is_too_short_to_judge() -> None:
    whole = made(falling)
    empty: dict[str, Any] = {name: values[:0] for name, values in whole.steps.items()}
    none = {name: values[:0] for name, values in whole.epochs.items()}
    assert diagnose(replace(whole, steps=empty, epochs=none)).first.name == "too_little"


def test_without_the_number_of_classes_chance_level_is_unknown() -> None:
    curves = made(falling, train=rising, validation=rising, classes=None)
    assert diagnose(curves).first.name == "healthy"


def test_without_clean_training_accuracy_the_running_accuracy_is_used() -> None:
    curves = made(falling, validation=0.8)
    epochs = dict(curves.epochs)
    epochs["train_accuracy"] = np.ones(20)
    del epochs["clean_train_accuracy"]
    assert diagnose(replace(curves, epochs=epochs)).first.name == "overfitting"


def test_a_gap_within_its_standard_error_is_noise() -> None:
    curves = made(falling, train=0.55, validation=0.49, update=0.004)
    assert diagnose(replace(curves, validation_rows=100)).first.name != "overfitting"


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 20])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_perfect_accuracy_is_never_called_a_guess(rows: int, classes: int) -> None:
    curves = made(falling, train=1.0, validation=1.0, classes=classes, epochs=10)
    first = diagnose(replace(curves, validation_rows=rows)).first
    assert first.name == ("healthy" if rows >= 20 else "nothing_seen"), "few rows show little, but no fault"
    assert first.good


@pytest.mark.parametrize(
    ("accuracy", "classes", "rows"),
    [
        (0.16, 10, 30),
        (0.10, 10, 360),
        (0.31, 3, 60),
        (0.33, 3, 200),
        (0.46, 2, 26),
        (0.55, 2, 40),
        (0.46, 10, 50),
        (0.55, 10, 90),
    ],
)
def test_an_accuracy_near_that_of_a_guess_is_never_called_healthy(accuracy: float, classes: int, rows: int) -> None:
    for update in (1e-5, 4e-4, 0.005):
        curves = made(falling, train=accuracy + 0.02, validation=accuracy, classes=classes, update=update)
        first = diagnose(replace(curves, validation_rows=rows)).first
        assert first.name != "healthy"
        assert "settled" not in first.evidence
        assert not first.good


def test_a_warmup_is_not_a_bad_initialization() -> None:
    warm = made(
        lambda p: GUESS if p < 0.16 else GUESS * math.exp(-8 * (p - 0.16)),
        rate=lambda p: 0.1 * min(1.0, p / 0.3),
        train=rising,
        validation=rising,
    )
    assert diagnose(warm).first.name == "healthy"


def test_every_threshold_has_a_reason() -> None:
    assert set(Thresholds.reasons()) == {field.name for field in fields(Thresholds)}
    assert all(len(reason) > 20 for reason in Thresholds.reasons().values())


def test_an_overfitting_run_on_part_of_the_data_is_advised_to_use_all_of_it() -> None:
    curves = made(falling, train=1.0, validation=0.8, job={"data": {"limit": 60}})
    first = diagnose(curves).first
    assert first.overrides == {"data.limit": None}
    assert first.command == "data.limit=null"


def test_frozen_weights_are_not_learning_even_if_noise_looks_like_a_fall() -> None:
    curves = made(lambda p: 2.7 - 0.3 * p, validation=0.1, train=0.1, update=1e-9, validation_loss=GUESS)
    assert diagnose(curves).first.name == "not_learning"


def test_one_odd_batch_at_the_end_is_no_rise() -> None:
    """Steps that fell to 0.1, and a last one of 0.7."""
    curves = made(lambda p: 0.1 + 1.0 * math.exp(-6 * p), validation=0.92, train=0.95, epochs=6, steps_per_epoch=12)
    curves.steps["loss"][-1] = 0.7
    assert diagnose(curves).first.name != "diverged"
    curves.steps["loss"][-8:] = 0.513
    assert diagnose(curves).first.name == "diverged"


LINEAR = DataSurvey(linear=0.9)
CLEAN = ("clean_train_accuracy", "clean_train_loss")


@pytest.mark.parametrize("survey", [DataSurvey(), LINEAR], ids=["plain", "linear"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_what_was_not_measured_is_no_nan_in_a_sentence(name: str, survey: DataSurvey) -> None:
    """With `train.evaluated_training_rows: 0` verdicts said "nan% on training rows" and "nan in evaluation"."""
    curves = replace(CASES[name](), survey=survey)
    named = [
        each for each in (*curves.epochs, *curves.steps) if each not in ("epoch", "step", "loss", "learning_rate")
    ]  # always there
    for columns in (CLEAN, *((each,) for each in named)):
        unknown = {each: np.full_like(curves.steps[each], np.nan) for each in columns if each in curves.steps}
        epochs = {each: known for each, known in curves.epochs.items() if each not in columns}
        for finding in diagnose(replace(curves, steps={**curves.steps, **unknown}, epochs=epochs)).findings:
            told = f"{finding.title} {finding.evidence} {finding.advice}"
            assert not re.search(r"\bnan", told), (columns, told)
            assert finding.name != "stale_statistics" or not {"clean_train_loss", "train_loss"} & set(columns)
