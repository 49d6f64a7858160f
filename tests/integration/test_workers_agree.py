"""Batch size is global: 1, 2 and 4 workers train the same network, ragged last batch and augmentation included."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import largest_difference, records, tiny, train_here, weights


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_1_2_and_4_workers_train_the_same_network(precision: str, tmp_path: Path) -> None:
    job = tiny(train__precision=precision)
    alone = train_here(job, tmp_path / "1")
    for workers in (2, 4):
        together = train_here(job, tmp_path / str(workers), workers=workers)
        steps, epochs = (largest_difference(a, b) for a, b in zip(records(alone), records(together), strict=True))
        if precision == "fp64":
            assert steps < 1e-9
            assert epochs < 1e-9
            for name, value in weights(alone).items():
                assert (value - weights(together)[name]).abs().max() < 1e-9, name
        else:
            # Rounding is amplified by training itself, so fp32 is held to the first ten steps.
            assert largest_difference(records(alone)[0], records(together)[0], rows=10) < 1e-5


def test_a_worker_without_rows_takes_part(tmp_path: Path) -> None:
    """257 rows in batches of 64: the last batch has one row, so three of four workers have none."""
    job = tiny(data__limit=257, train__precision="fp64", train__epochs=2)
    alone, together = train_here(job, tmp_path / "1"), train_here(job, tmp_path / "4", workers=4)
    assert alone.steps()["examples"].to_pylist()[4::5] == [1, 1]
    assert largest_difference(records(alone)[0], records(together)[0]) < 1e-9
