"""The time that a prediction still takes, told by the speed since its processes could work."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from lehr.kinds.predict import _Shown
from lehr.predict.part_files import PartResult
from lehr.predict.progress import PredictionProgress


def shown(rows: int, before: int = 0) -> _Shown:
    source: Any = SimpleNamespace(rows=rows)
    progress = PredictionProgress(source, 0.0)
    if before:
        progress.add([PartResult(99, before)])
    running: Any = None
    return _Shown(running, progress, running, 1)


def test_starting_the_processes_is_no_part_of_the_speed() -> None:
    """4,000 images took half a second; with the start of their processes counted, 7.6 s were told."""
    told = shown(4000)
    told.began -= 10.0
    assert told._seconds_left() is None
    told.progress.add([PartResult(0, 1000, ready=told.last - 2.0)])
    assert told._seconds_left() == pytest.approx(6.0)


def test_rows_of_an_earlier_attempt_are_no_part_of_the_speed() -> None:
    told = shown(4000, before=2000)
    told.began -= 10.0
    assert told._seconds_left() is None, "nothing was predicted in this attempt"
    told.progress.add([PartResult(0, 500, ready=told.last - 1.0)])
    assert told._seconds_left() == pytest.approx(3.0)


def test_the_clock_of_another_machine_makes_no_estimate_negative_or_longer_than_the_attempt() -> None:
    for ready in (time.time() + 3600, time.time() - 3600):
        told = shown(4000)
        told.began -= 10.0
        told.progress.add([PartResult(0, 1000, ready=ready)])
        left = told._seconds_left()
        assert left is not None
        assert 0 <= left <= 30.0
