"""Runs with different seeds can hold out the same rows, and be limited to the same rows."""

from __future__ import annotations

import pytest
from tests.support import tiny

from lehr.data.load import OpenedSources, splits


@pytest.mark.parametrize(("split_seed", "same"), [(None, False), (7, True)])
def test_rows_follow_the_seed_of_the_split(split_seed: int | None, same: bool) -> None:
    data = OpenedSources(tiny()).decode()
    one, other = (splits(tiny(seed=seed, data__split_seed=split_seed), data) for seed in (1, 2))
    assert (one.validation.ids.tolist() == other.validation.ids.tolist()) == same
    assert (one.train.ids.tolist() == other.train.ids.tolist()) == same


def test_the_seed_of_the_job_is_the_default() -> None:
    data = OpenedSources(tiny()).decode()
    one, other = (splits(job, data) for job in (tiny(seed=7), tiny(seed=1, data__split_seed=7)))
    assert one.train.ids.tolist() == other.train.ids.tolist()
