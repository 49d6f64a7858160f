"""How many processes predict, and that the images they wait for can always be decoded."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lehr.job import WorkersSection
from lehr.predict.allocation import actors

GROWS = {"CPU": math.inf, "GPU": math.inf}


@pytest.mark.parametrize(
    ("workers", "there", "count", "spare"),
    [
        ({}, (8, 0), 8, True),  # this machine's own Ray counts one CPU more
        ({}, (1, 0), 1, True),
        ({}, (8, 0, ((8, 0),)), 7, True),
        ({}, (1, 0, ((1, 0),)), 1, False),  # a cluster of one CPU
        ({}, (1, 0, ((0, 0), (1, 0))), 1, False),  # and its head, which has none
        ({"cpus": 3}, (10, 0, ((5, 0), (5, 0))), 2, True),  # never more than fit on the nodes
        ({"cpus": 4}, (8, 0, ((4, 0), (4, 0))), 1, True),
        ({}, (2, 2, ((2, 2),)), 2, False),
        ({"count": 3}, (8, 0, ((8, 0),)), 3, True),
        ({"count": 30}, (8, 0, ((8, 0),)), 7, True),
        ({"count": 3}, (0, 0, ((0, 0),), GROWS), 3, False),  # a cluster that begins with no workers
        ({}, (0, 0, ((0, 0),), GROWS), 1, False),
        ({"count": 30}, (2, 0, ((0, 0), (2, 0)), {"CPU": 8.0}), 8, False),
        ({"count": 30}, (0, 0, ((0, 0),)), 1, False),
    ],
)
def test_what_predicts_fits_and_leaves_a_cpu_for_decoding_or_decodes_without_one(
    workers: dict[str, Any], there: Any, count: int, spare: bool
) -> None:
    cpus, gpus, *rest = there
    pool = actors(WorkersSection(**workers), cpus, gpus, 100, *rest)
    assert (pool.actors.most, pool.spare_cpus) == (count, spare)


def test_there_are_no_more_processes_than_parts() -> None:
    assert actors(WorkersSection(), 8, 0, 2).actors.most == 2
