"""How many epochs a trial of a search is expected to get."""

from __future__ import annotations

import pytest

from lehr.job.search import Stopping
from lehr.search.record import EarlyEnd, TrialRecord
from lehr.search.survival import Survival


def trial(number: int, epochs: int, ended: bool = False) -> TrialRecord:
    return TrialRecord(number, {}, (0.5,) * epochs, EarlyEnd(epochs, "") if ended else None)


def test_without_early_stopping_every_trial_gets_all_its_epochs() -> None:
    survival = Survival.of(Stopping(name="none"), 9, [])
    assert (survival.epochs_left(0), survival.epochs_left(4), survival.epochs_left(9)) == (9, 5, 0)


def test_before_any_trial_was_compared_one_in_factor_goes_on() -> None:
    survival = Survival.of(Stopping(name="asha", first=1, factor=3), 9, [])
    assert survival.epochs_left(0) == pytest.approx(1 + 2 / 3 + 6 / 9)
    assert survival.epochs_left(3) == pytest.approx(6), "it has passed the rung of epoch 3"


def test_what_was_seen_at_a_rung_counts() -> None:
    stopping = Stopping(name="asha", first=1, factor=3)
    all_ended = Survival.of(stopping, 9, [trial(number, 1, ended=True) for number in range(30)])
    none_ended = Survival.of(stopping, 9, [trial(number, 9) for number in range(30)])
    assert all_ended.epochs_left(0) < 1.2
    assert none_ended.epochs_left(0) > 8


def test_the_median_rule_ends_trials_from_its_first_epoch_on() -> None:
    stopping = Stopping(name="median", first=3, least=2)
    assert Survival.of(stopping, 10, []).chances.keys() == set(range(3, 10))
    ended = [trial(number, 3, ended=True) for number in range(40)]
    assert Survival.of(stopping, 10, ended).epochs_left(0) < Survival.of(stopping, 10, []).epochs_left(0)
