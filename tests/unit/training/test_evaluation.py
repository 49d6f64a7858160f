"""What is evaluated in one forward pass: a thousand small images, and no more photographs than fit into a laptop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lehr.training.evaluation import rows_at_once


@pytest.mark.parametrize(("side", "rows"), [(8, 1024), (64, 1024), (65, 992), (224, 83), (1024, 4), (9000, 1)])
def test_larger_images_are_evaluated_fewer_at_a_time(side: int, rows: int) -> None:
    plan: Any = SimpleNamespace(preprocess=SimpleNamespace(shape=(3, side, side)))
    assert rows_at_once(plan) == rows
