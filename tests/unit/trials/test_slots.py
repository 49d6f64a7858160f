"""How trials share a cluster, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import tiny

from lehr.trials.slots import slots


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "at_most", "count", "of_worker"),
    [
        ("auto", 2, 0, None, 2, (1, 1, 0)),  # every core has a trial
        ("auto", 16, 0, 4, 4, (1, 4, 0)),  # few trials get more cores each
        ("auto", 16, 0, 100, 16, (1, 1, 0)),
        ("auto", 16, 2, None, 2, (1, 8, 1)),  # a GPU for each trial, and the cores with it
        ({"gpus": 0.25}, 16, 2, None, 8, (1, 2, 0.25)),
        ({"cpus": 4}, 16, 0, None, 4, (1, 4, 0)),
        ({"cpus": 4}, 2, 0, None, 1, (1, 4, 0)),
        ({"count": 2}, 8, 0, None, 4, (2, 1, 0)),
        ({"count": 2}, 8, 0, 2, 2, (2, 2, 0)),
        ({"count": 2, "gpus": 1}, 16, 4, None, 2, (2, 4, 1)),
        ({"count": [1, 4], "cpus": 2}, 16, 0, None, 2, ((1, 4), 2, 0)),
        ({"count": 1}, 2, 1, None, 2, (1, 1, 0)),  # a given number of workers takes the GPUs it asks for: none
    ],
)
def test_slots(workers: Any, cpus: float, gpus: float, at_most: int | None, count: int, of_worker: Any) -> None:
    found = slots(tiny(workers=workers), cpus, gpus, at_most)
    assert found.count == count
    assert (found.share.workers, found.share.cpus, found.share.gpus) == of_worker
