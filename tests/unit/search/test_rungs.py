"""The rules that end a trial early, as tables."""

from __future__ import annotations

import pytest

from lehr.job import from_dict, to_dict
from lehr.job.search import SearchJob, Stopping
from lehr.search.rungs import asha_ends, epoch_bounds, median_ends, reason_to_end, rungs

ASHA, MEDIAN = Stopping(), Stopping(name="median", first=2, least=2)


@pytest.mark.parametrize(
    ("stopping", "epochs", "wanted"),
    [
        (ASHA, 27, [1, 3, 9]),
        (ASHA, 28, [1, 3, 9, 27]),
        (ASHA, 1, []),
        (Stopping(first=2, factor=2), 20, [2, 4, 8, 16]),
        (Stopping(name="none"), 27, []),
        (MEDIAN, 27, []),
    ],
)
def test_rungs_are_below_the_full_length(stopping: Stopping, epochs: int, wanted: list[int]) -> None:
    assert rungs(stopping, epochs) == wanted


@pytest.mark.parametrize(
    ("warmup", "epochs", "first"), [("0ep", 9, 2), ("1ep", 9, 3), ("0.5ep", 9, 3), ("10%", 25, 5), ("5ep", 5, 4)]
)
def test_by_default_no_trial_is_compared_during_the_warmup(warmup: str, epochs: int, first: int) -> None:
    base = {"schedule": {"name": "cosine", "warmup": warmup}, "train": {"epochs": epochs}}
    job = from_dict({"kind": "search", "base": base, "space": {"optimizer.lr": [0.1, 1]}})
    assert isinstance(job, SearchJob)
    again = from_dict(to_dict(job))
    assert isinstance(again, SearchJob)
    assert job.stopping.first == again.stopping.first == first
    assert Stopping().first == 1
    said = from_dict({**to_dict(job), "stopping": {"name": "asha", "first": 3}})
    assert isinstance(said, SearchJob)
    assert said.stopping.first == 3


@pytest.mark.parametrize(
    ("score", "others", "ends"),
    [
        (0.1, [], False),  # the first at a rung continues
        (0.5, [0.4], False),
        (0.3, [0.4], True),  # one of two: only the best
        (0.3, [0.4, 0.1], True),
        (0.4, [0.4, 0.1], False),  # as good as the best
        (0.45, [0.5, 0.1, 0.2, 0.3, 0.4], False),  # second of six, of which two continue
        (0.35, [0.5, 0.1, 0.2, 0.3, 0.4], True),
        (float("-inf"), [0.1], True),
    ],
)
def test_asha_continues_one_trial_in_three_and_always_the_best(score: float, others: list[float], ends: bool) -> None:
    assert asha_ends(score, others, 3) is ends


@pytest.mark.parametrize(
    ("score", "others", "ends"),
    [
        (0.1, [[0.5, 0.6]], False),  # too few trials to compare with
        (0.1, [[0.5, 0.6], [0.3]], False),  # one of them has not reached the epoch
        (0.5, [[0.5, 0.7], [0.3, 0.4], [0.1, 0.2]], False),
        (0.3, [[0.5, 0.7], [0.3, 0.4], [0.1, 0.2]], True),  # the means are 0.6, 0.35 and 0.15
    ],
)
def test_the_median_rule_compares_with_means_up_to_the_same_epoch(
    score: float, others: list[list[float]], ends: bool
) -> None:
    assert median_ends(score, others, epoch=2, least=2) is ends


def test_a_trial_is_compared_at_rungs_by_its_best_score_and_never_at_its_end() -> None:
    curves = {0: [0.9, 0.9, 0.9], 1: [0.5, 0.5, 0.95], 2: [0.2, 0.1, 0.1]}
    assert reason_to_end(ASHA, curves, 1, epochs=9) is None
    assert "1 of 3 at the rung of epoch 3" in str(reason_to_end(ASHA, curves, 2, epochs=9))
    assert reason_to_end(ASHA, {**curves, 2: [0.2, 0.1]}, 2, epochs=9) is None  # epoch 2 is not a rung
    assert reason_to_end(ASHA, curves, 2, epochs=3) is None  # it is at its end
    assert reason_to_end(Stopping(name="none"), curves, 2, epochs=9) is None


def test_the_decision_does_not_depend_on_the_order_of_the_records() -> None:
    curves = {0: [0.3], 1: [0.9], 2: [0.5], 3: [0.7]}
    turned = dict(reversed(list(curves.items())))
    assert reason_to_end(ASHA, curves, 2, 9) == reason_to_end(ASHA, turned, 2, 9) is not None


@pytest.mark.parametrize(
    ("stopping", "trials", "least", "most"),
    [
        (Stopping(name="none"), 10, 90, 90),
        (ASHA, 9, 9 * 1 + 3 * 2 + 1 * 6, 81),  # rungs at 1 and 3 of 9 epochs
        (Stopping(first=9), 4, 36, 36),
    ],
)
def test_what_a_search_will_cost(stopping: Stopping, trials: int, least: int, most: int) -> None:
    assert epoch_bounds(stopping, trials, 9) == (least, most)
