"""Why Ray Train gave up is one sentence, also where it never had a worker to ask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from lehr.kinds.train import _gave_up

KILLED = """1 worker(s) were killed due to the node running low on memory. Memory on the node was 2.9GB of 3GB.
Refer to the documentation on how to address the out of memory issue: https://docs.example.com/debug-memory.html"""


def test_full_memory_is_named_and_not_the_last_line_of_rays_advice() -> None:
    said = str(_gave_up(cast(Any, SimpleNamespace(log="log.txt")), 3, RuntimeError(KILLED)))
    assert said.startswith("training failed because the machine's memory is full; try a smaller train.batch_size")
    assert "Refer to the documentation" not in said
