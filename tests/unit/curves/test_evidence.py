"""What has to be seen before a cause is named: enough rows, and signs of more than one kind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.runs import DataSurvey, NetworkSurvey, SplitSurvey

from .curves import made

GUESS = math.log(10)


def on_rows(curves: Curves, rows: int) -> Curves:
    return replace(curves, validation_rows=rows)


def falling(p: float) -> float:
    return 0.05 + 2.25 * math.exp(-8 * p)


def flat_then_falling(p: float) -> float:
    return GUESS if p < 0.3 else GUESS * math.exp(-12 * (p - 0.3))


UNFINISHED: dict[str, Any] = {
    "loss": lambda p: 2.3 - 1.7 * p,
    "train": lambda p: 0.2 + 0.72 * p,
    "validation": lambda p: 0.2 + 0.6 * p,
    "validation_loss": lambda p: 2.3 - 1.6 * p,
}
AT_GUESS: dict[str, Any] = {"validation": 0.1, "train": 0.1, "validation_loss": GUESS}


def test_no_cause_is_named_where_the_rows_could_not_show_that_mending_it_helps() -> None:
    curves = made(falling, noise=0.5, train=0.9, validation=0.88, update=0.006)
    assert diagnose(on_rows(curves, 2000)).first.name == "oscillating"
    few = diagnose(on_rows(curves, 60))
    assert few.first.name == "nothing_seen"
    assert [(each.name, each.confidence) for each in few.findings[1:]] == [("oscillating", "low")]


def test_a_run_is_too_short_only_where_what_is_left_to_learn_could_be_measured() -> None:
    assert diagnose(on_rows(made(**UNFINISHED), 2000)).first.name == "too_short"
    assert diagnose(on_rows(made(**UNFINISHED), 50)).first.name != "too_short"


def test_few_rows_do_not_show_that_a_network_is_no_better_than_a_guess() -> None:
    idle = made(lambda p: GUESS - 0.1 * p, validation=0.1, train=0.11, validation_loss=GUESS)
    assert diagnose(idle).first.name == "at_chance"
    assert diagnose(on_rows(idle, 40)).first.name != "at_chance"


def test_rows_learned_by_heart_are_not_told_as_wrong_labels_nor_with_high_confidence() -> None:
    by_heart = made(lambda p: GUESS - 0.8 * p, validation=0.1, train=0.7, validation_loss=lambda p: 2.4 + p)
    first = diagnose(by_heart).first
    assert (first.name, first.title, first.confidence) == ("overfitting", "Training rows learned by heart", "medium")
    assert "Labels that do not belong to the images look the same" in first.advice


def test_a_flat_start_is_the_initialization_s_fault_only_where_gradients_are_small_too() -> None:
    usual: dict[str, Any] = {"update": 0.004, "train": 0.6, "validation": 0.58}
    assert diagnose(made(flat_then_falling, gradient_norm=0.1, **usual)).first.name == "bad_initialization"
    assert diagnose(made(flat_then_falling, gradient_norm=1.0, **usual)).first.name != "bad_initialization"
    hindered = made(flat_then_falling, gradient_norm=1.0, update=0.004, train=0.4, validation=0.38)
    assert diagnose(hindered).first.confidence == "low"


def test_a_loss_that_rose_under_violent_updates_and_came_back_shows_a_rate_that_is_too_high() -> None:
    """It is flat and then falls, as after a bad initialization, but no initialization makes it rise."""

    def blown(p: float) -> float:
        return GUESS if p < 0.005 else 40.0 if p < 0.3 else 0.9 + 40 * math.exp(-40 * (p - 0.3))

    curves = made(blown, update=lambda p: 0.3 if p < 0.3 else 0.001, train=0.68, validation=0.66)
    first = diagnose(curves).first
    assert (first.name, first.confidence) == ("diverged", "high")
    assert first.overrides["optimizer.lr"] < 0.1


@pytest.mark.parametrize(
    "curves",
    [
        made(GUESS, update=0.05, gradient_norm=0.1, **AT_GUESS),
        made(lambda p: GUESS * (1.5 if 0.5 <= p < 0.5025 else 1), update=0.004, **AT_GUESS),
    ],
    ids=["updates are large beside small weights", "one batch was hard"],
)
def test_one_sign_alone_does_not_show_a_rate_that_is_too_high(curves: Curves) -> None:
    assert diagnose(curves).first.name != "diverged"


def test_a_loss_that_stays_above_that_of_a_guess_under_large_updates_is_told_with_medium_confidence() -> None:
    first = diagnose(made(GUESS + 0.03, update=0.02, **AT_GUESS)).first
    assert (first.name, first.confidence) == ("diverged", "medium")
    assert diagnose(made(GUESS + 0.03, update=0.002, **AT_GUESS)).first.name != "diverged"


def test_a_loss_around_that_of_a_guess_is_no_rate_that_is_too_high_where_no_signal_passes() -> None:
    """Violent updates of weights that pass nothing on keep the loss a little above that of a guess."""
    large: dict[str, Any] = {"update": 0.02, **AT_GUESS}
    dead, high = (diagnose(made(GUESS + above, gradient_norm=0.05, **large)).first for above in (0.005, 0.06))
    assert dead.name == "not_learning"
    assert high.name == "diverged"
    assert diagnose(made(GUESS + 0.005, gradient_norm=1.0, **large)).first.name != "not_learning"


def test_a_network_that_does_not_learn_is_surely_dead_only_where_no_signal_passes() -> None:
    stuck: dict[str, Any] = {"update": 0.004, **AT_GUESS}
    dead, open_ = (diagnose(made(GUESS, gradient_norm=norm, **stuck)).first for norm in (0.05, 1.0))
    assert (dead.name, dead.confidence) == ("not_learning", "high")
    assert (open_.name, open_.confidence) == ("not_learning", "medium")


def test_a_loss_that_varies_under_a_rate_that_decays_settles_by_itself() -> None:
    usual: dict[str, Any] = {"noise": 0.5, "train": 0.8, "validation": 0.78, "update": 0.006}
    assert diagnose(made(falling, **usual)).first.name == "oscillating"
    assert diagnose(made(falling, rate=lambda p: 0.1 * (1 - p), **usual)).first.name != "oscillating"


def test_other_validation_labels_are_seen_by_a_linear_model_where_the_network_learned_nothing() -> None:
    rows = SplitSurvey(rows=1000, counts=(100,) * 10)
    survey = DataSurvey(train=rows, validation=rows, linear=0.1, held_out=0.55, held_out_rows=200)
    curves = made(lambda p: GUESS - 0.05 * p, update=0.004, survey=survey, network=NetworkSurvey(), **AT_GUESS)
    assert diagnose(curves).first.name == "split_differs"


def test_augmented_rows_that_are_harder_are_no_fault_where_the_plain_ones_are_nearly_learned() -> None:
    job = {"data": {"augment": [{"name": "shift", "pixels": 1}]}}
    usual: dict[str, Any] = {"running_loss": 0.45, "clean_loss": 0.25, "job": job}
    assert diagnose(made(falling, train=0.6, validation=0.58, **usual)).first.name == "too_regularised"
    assert diagnose(made(falling, train=0.95, validation=0.9, **usual)).first.name != "too_regularised"
