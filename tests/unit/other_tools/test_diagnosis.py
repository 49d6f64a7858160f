"""What is said of other tools' curves: what they show beyond their own noise, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from lehr.other_tools import Verdict, diagnose_log
from lehr.other_tools.recorded import from_rows
from lehr.other_tools.resolve import log_of
from lehr.other_tools.signals import noise


def verdict(**columns: object) -> Verdict:
    """Of a log with a row for each epoch."""
    table = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    count = max(map(len, table.values()))
    rows = [{"epoch": n, **{name: float(y[n]) for name, y in table.items() if n < len(y)}} for n in range(count)]
    (recorded,) = from_rows(rows, "log.csv")
    return diagnose_log(log_of(recorded, "log.csv", {}))


def names(found: Verdict) -> list[str]:
    return [each.finding.name for each in found.judged]


def falling(first: float, last: float, count: int = 30, sharp: float = 5.0) -> np.ndarray:
    """An exponential from `first` towards `last`."""
    return last + (first - last) * np.exp(-sharp * np.arange(count) / count)


def noisy(curve: np.ndarray, size: float, seed: int) -> np.ndarray:
    return curve + size * np.random.default_rng(seed).standard_normal(len(curve))


SEEDS = range(40)


def test_the_noise_of_a_curve_is_that_around_its_course_not_its_fall() -> None:
    measured = [noise(noisy(falling(2.0, 0.5, 200), 0.05, seed)) for seed in SEEDS]
    assert 0.045 < np.median(measured) < 0.055
    assert noise(np.linspace(5, 1, 50)) == pytest.approx(0.0, abs=1e-12)


def test_an_evaluation_that_is_carried_on_does_not_look_free_of_noise() -> None:
    """talmolab/sleap-nn#722: epochs without an evaluation repeat the last one."""
    jumping = noisy(np.full(20, 0.7), 0.1, 8)
    assert noise(np.repeat(jumping, 3)) == pytest.approx(noise(jumping))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_diverged(value: float) -> None:
    loss = falling(2, 1, 10)
    loss[6:] = value
    found = verdict(loss=loss, val_loss=falling(2, 1.2, 10))
    assert names(found) == ["diverged"]
    assert (found.judged[0].begin, found.judged[0].end) == (6, 9)
    assert "at epoch 6" in found.judged[0].finding.evidence


def test_a_training_loss_that_rises_again_diverged() -> None:
    loss = np.concatenate([falling(3, 1, 20), np.linspace(1, 3.5, 20)])
    assert names(verdict(loss=loss, val_loss=loss + 0.1)) == ["diverged"]


def test_a_flat_training_loss_is_not_learning() -> None:
    found = verdict(loss=noisy(np.full(20, 2.303), 0.002, 1), val_loss=noisy(np.full(20, 2.305), 0.002, 2))
    assert names(found) == ["not_learning"]


def test_a_validation_loss_that_rises_while_training_falls_is_overfitting() -> None:
    rising = np.concatenate([falling(2, 1, 10), np.linspace(1, 1.8, 20)])
    accuracy = np.concatenate([0.7 - falling(0.4, 0, 10), np.linspace(0.7, 0.6, 20)])
    found = verdict(loss=falling(2, 0.05), val_loss=noisy(rising, 0.02, 3), val_accuracy=noisy(accuracy, 0.005, 4))
    assert names(found) == ["overfitting"]
    assert 8 <= found.judged[0].begin <= 12
    assert "Keep the checkpoint of epoch" in found.judged[0].finding.advice


def test_rising_validation_loss_at_a_steady_accuracy_is_overconfidence() -> None:
    rising = np.concatenate([falling(2, 1, 10), np.linspace(1, 1.8, 20)])
    found = verdict(loss=falling(2, 0.05), val_loss=rising, val_accuracy=noisy(0.7 - falling(0.4, 0), 0.003, 4))
    assert names(found)[0] == "overconfident"


def test_training_accuracy_far_above_validation_is_overfitting() -> None:
    found = verdict(accuracy=1 - falling(0.5, 0), val_accuracy=0.7 - falling(0.3, 0), loss=falling(2, 0.1))
    assert names(found) == ["overfitting"]


def test_accuracy_that_jumps_is_told() -> None:
    jumping = noisy(np.full(20, 0.7), 0.12, 5)
    assert "restless" in names(verdict(loss=falling(2, 1, 20), val_loss=falling(2, 1.2, 20), val_accuracy=jumping))


def test_a_training_that_still_gains_is_too_short() -> None:
    accuracy = np.linspace(0.2, 0.6, 20)
    found = verdict(loss=np.linspace(2, 1, 20), val_loss=np.linspace(2.1, 1.2, 20), val_accuracy=accuracy)
    assert names(found) == ["too_short"]
    assert found.judged[0].finding.confidence == "medium"


def test_a_training_with_a_schedule_that_came_down_is_not_just_continued() -> None:
    lr = 0.1 * (1 + np.cos(np.pi * np.arange(20) / 19)) / 2
    found = verdict(loss=np.linspace(2, 1, 20), val_loss=np.linspace(2.1, 1.2, 20), lr=lr)
    assert "its rate has come down" in found.judged[0].finding.advice


def test_a_plateau_at_a_constant_rate() -> None:
    loss = falling(2, 1, 40, sharp=20)
    found = verdict(loss=noisy(loss, 0.01, 6), val_loss=noisy(loss, 0.01, 7), lr=np.full(40, 0.1))
    assert names(found) == ["plateau"]
    assert names(verdict(loss=loss, val_loss=loss, lr=np.linspace(0.1, 0, 40))) == ["nothing_seen"]


@pytest.mark.parametrize("last", [2, 3])
def test_few_values_claim_nothing(last: int) -> None:
    found = verdict(loss=falling(2, 1, last), val_loss=falling(2.1, 1.2, last))
    assert names(found) in (["too_little"], ["too_short"])
    assert names(verdict(loss=[2, 1.9], val_loss=[2.0, 2.4], val_accuracy=[0.1, 0.1])) == ["too_little"]


def test_sound_curves_raise_no_alarm() -> None:
    alarms = 0
    for seed in SEEDS:
        accuracy = noisy(0.85 - falling(0.5, 0, 40, sharp=10), 0.01, seed)
        losses = (
            noisy(falling(2, 0.5, 40, sharp=10), 0.02, seed + 100),
            noisy(falling(2, 0.55, 40, sharp=10), 0.02, seed + 200),
        )
        lr = 0.1 * (1 + np.cos(np.pi * np.arange(40) / 39)) / 2
        found = verdict(loss=losses[0], val_loss=losses[1], val_accuracy=accuracy, lr=lr)
        alarms += not found.judged[0].finding.good
    assert alarms <= 2  # of 40


def test_nearly_all_right_is_healthy_and_low_accuracy_is_not() -> None:
    loss, lr = falling(2, 0.1, 40, sharp=10), np.linspace(0.1, 0, 40)
    assert names(verdict(loss=loss, val_loss=loss, val_accuracy=0.98 - loss / 40, lr=lr)) == ["healthy"]
    low = verdict(loss=loss, val_loss=loss, val_accuracy=0.15 - loss / 40, lr=lr)
    assert names(low) == ["unclear"]
    assert not low.judged[0].finding.good


def test_what_was_not_recorded_is_named() -> None:
    untold = " ".join(verdict(loss=falling(2, 1)).untold)
    assert "whether it overfits" in untold
    assert "learning rate" in untold
    everything = verdict(
        loss=falling(2, 1), val_loss=falling(2, 1), accuracy=[0.5] * 30, val_accuracy=[0.5] * 30, lr=[1] * 30
    )
    assert everything.untold == ("how sure its accuracy is (give --rows, the number of validation rows)",)


def test_a_metric_of_errors_is_better_when_it_falls() -> None:
    found = verdict(loss=falling(2, 1, 20), eval_loss=falling(2, 1.1, 20), eval_wer=np.linspace(30, 10, 20))
    assert names(found) == ["too_short"]
    assert "WER" in found.judged[0].finding.evidence
