"""The estimate of the time left of a job made of trials, against trials whose times are known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from lehr.trials import Deadline, Work
from lehr.trials.pace import END_SECONDS, Pace, makespan
from lehr.trials.study import work_of


class Simulated:
    """A clock, and trials that run on it one after another."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pace = Pace(lambda: self.now)

    def trial(self, name: str, epochs: int, seconds: float, start: float = 0.0, tail: float = 0.0) -> None:
        self.pace.began(name)
        self.now += start
        for epoch in range(1, epochs + 1):
            self.now += seconds
            self.pace.epoch(name, {"epoch": epoch, "seconds": seconds})
        self.now += tail
        self.pace.ended(name)


def left(pace: Pace, at_once: int = 1, waiting: tuple[float, ...] = (), **running: float) -> float:
    found = pace.seconds_left(Work(running, waiting), at_once)
    assert found is not None
    return found


def test_nothing_is_said_before_the_first_epoch() -> None:
    assert Pace().seconds_left(Work({"a": 5}, (5, 5)), 2) is None


def test_starting_ray_and_loading_data_come_once_and_are_not_counted_again() -> None:
    run = Simulated()
    run.pace.began("a")
    run.now += 30 + 2  # half a minute until training begins
    run.pace.epoch("a", {"epoch": 1, "seconds": 2.0})
    assert left(run.pace, waiting=(5.0,) * 3, a=4) == pytest.approx(2 * 4 + 3 * 10)


def test_the_first_epoch_in_which_things_are_compiled_does_not_count_once_there_is_another() -> None:
    run = Simulated()
    run.pace.began("a")
    for epoch, seconds in enumerate((20.0, 1.0), 1):
        run.now += seconds
        run.pace.epoch("a", {"epoch": epoch, "seconds": seconds})
    assert left(run.pace, a=8) == pytest.approx(8.0)


def test_what_a_further_trial_adds_is_what_earlier_ones_added() -> None:
    run = Simulated()
    run.trial("a", 3, 1.0, start=40, tail=2)
    run.trial("b", 3, 1.0, start=1, tail=2)
    assert left(run.pace, waiting=(3.0, 3.0)) == pytest.approx(2 * (1 + 3 + 2))


def test_trials_side_by_side_share_the_time() -> None:
    run = Simulated()
    run.trial("a", 4, 1.0)
    assert left(run.pace, 4, waiting=(4.0,) * 8) == pytest.approx(8.0)
    assert left(run.pace, 4, waiting=(4.0,) * 9) == pytest.approx(12.0), "the last one runs alone"


def test_time_since_the_last_epoch_counts() -> None:
    run = Simulated()
    run.trial("a", 2, 10.0)
    run.pace.began("b")
    run.now += 6
    assert left(run.pace, b=2) == pytest.approx(14.0)


def test_an_epoch_of_less_weight_takes_less() -> None:
    run = Simulated()
    run.pace.began("few", weight=0.5)
    run.now += 3
    run.pace.epoch("few", {"epoch": 1, "seconds": 3.0})
    assert left(run.pace, waiting=(2.0,)) == pytest.approx(12.0)


def test_a_deadline_is_the_most() -> None:
    run = Simulated()
    run.trial("a", 1, 100.0)
    work: Mapping[str, float] = {"b": 50.0}
    found = run.pace.seconds_left(Work(work, deadline=Deadline(time.time() + 7, "")), 1)
    assert found == pytest.approx(7, abs=1)
    assert Pace().seconds_left(Work(work, deadline=Deadline(time.time() + 7, "")), 1) is None, "that is no estimate"


def test_makespan_is_that_of_giving_each_task_to_the_place_that_is_free_first() -> None:
    assert makespan([], [], 3) == 0
    assert makespan([5.0, 1.0], [3.0, 3.0], 2) == 7
    assert makespan([1.0] * 4, [], 2) == 1, "more may run than there are places, after a restart"


def test_a_trial_without_epochs_is_asked_how_long_it_takes() -> None:
    """Heads on features took 105 s, during most of which "0 s left" was shown."""
    run = Simulated()
    run.pace.began("features", weight=0.0)
    assert run.pace.seconds_left(Work({"features": 0.0}), 2) is None
    alone = Work({"features": 0.0}, told={"features": 80.0})
    assert run.pace.seconds_left(alone, 2) == pytest.approx(80.0)
    run.trial("finetune", 3, 1.0)
    assert run.pace.seconds_left(replace(alone, running={"features": 0.0, "finetune": 5.0}), 2) == pytest.approx(80.0)


def test_what_follows_the_last_trial_is_part_of_the_time_left() -> None:
    """Measuring, choosing and the page took 2 to 7 seconds in which "0 s left" was shown."""
    run = Simulated()
    run.trial("a", 3, 1.0)
    found = run.pace.seconds_left(work_of([], [], [], {}), 1)
    assert found == pytest.approx(END_SECONDS)


def test_what_the_first_step_of_a_process_takes_longer_is_no_part_of_an_epoch() -> None:
    """Ten short trials were told to take half as long again, by the first epoch of the first."""
    run = Simulated()
    run.pace.began("a")
    run.now += 3.0
    run.pace.epoch("a", {"epoch": 1, "seconds": 3.0, "warm_up": 2.0})
    assert left(run.pace, waiting=(4.0,), a=3) == pytest.approx(3 + 4)


def test_a_range_is_told_until_the_times_of_trials_to_come_are_known() -> None:
    run = Simulated()
    work = Work({}, (4.0,) * 6)
    assert run.pace.doubt(work) == 1.0, "nothing is estimated yet"
    run.trial("a", 2, 1.0)
    assert run.pace.doubt(work) == pytest.approx(1.5)
    assert run.pace.doubt(Work({"a": 2})) == 1.0, "of the trial that runs, the epochs are known"
    run.trial("b", 2, 1.0)
    assert run.pace.doubt(work) == 1.0, "two trials took the same: it holds within a third"
    run.trial("c", 2, 9.0)
    assert run.pace.doubt(work) > 4 / 3, "their times differ too much"


def test_nothing_is_said_while_a_trial_without_epochs_has_not_told_how_long_it_takes() -> None:
    """A transfer was told to take 5 s where its heads took 46."""
    run = Simulated()
    run.pace.began("features", weight=0.0)
    run.trial("finetune", 3, 1.0)
    running = {"features": 0.0, "finetune": 5.0}
    assert run.pace.seconds_left(Work(running), 2) is None
    assert run.pace.seconds_left(Work(running, told={"features": 46.0}), 2) == pytest.approx(46.0)


def test_trials_to_come_without_epochs_take_what_is_expected_of_them() -> None:
    run = Simulated()
    run.trial("finetune", 3, 1.0)
    assert run.pace.seconds_left(Work(waiting=(3.0,), waiting_seconds=(20.0,)), 1) == pytest.approx(23.0)
