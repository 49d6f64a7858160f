"""Workers that ask for what will never be there are refused with what there is; a cluster that can grow may wait."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import from_dict
from lehr.job.unused import unused_in_debug
from lehr.training.allocation import WorkerResources, too_much

TWO_NODES = ((4.0, 0.0), (4.0, 0.0))


@pytest.mark.parametrize(
    ("workers", "there", "sentence"),
    [
        ((1, 1.0, 1.0), (8, 0), "1 worker with 1 GPU, and this machine has 0; type: workers.gpus=0"),
        ((2, 1.0, 1.0), (8, 1), "2 workers with 1 GPU each, and this machine has 1; type: workers.gpus=0"),
        ((2, 1.0, 0.5), (8, 1), None),
        ((4, 1.0, 0.0), (2, 0), None),  # the job's own Ray counts as many CPUs as the workers ask for
        ((1, 1.0, 1.0), (8, 0, TWO_NODES), "1 worker with 1 GPU, and the cluster has 0; type: workers.gpus=0"),
        ((1, 1.0, 1.0), (8, 0, TWO_NODES, {"GPU": 2.0}), None),
        ((1, 1.0, 3.0), (8, 0, TWO_NODES, {"GPU": 2.0}), "the cluster has 0 and can grow to 2; type: workers.gpus=0"),
        ((4, 3.0, 0.0), (8, 0, TWO_NODES), "4 workers with 3 CPUs each, and the cluster has 8; type: workers.cpus=2"),
        ((1, 6.0, 0.0), (8, 0, TWO_NODES), "a worker with 6 CPUs must fit onto one node"),
        (((1, 9), 2.0, 0.0), (8, 0, TWO_NODES), None),
    ],
)
def test_what_can_never_start_is_refused(workers: Any, there: Any, sentence: str | None) -> None:
    found = too_much(WorkerResources(*workers), *there)
    assert (found is None) if sentence is None else (found is not None and sentence in found[1])


@pytest.mark.parametrize(
    ("job", "unused"),
    [
        ({"kind": "train"}, []),
        ({"kind": "train", "workers": 1}, []),
        ({"kind": "train", "workers": {"count": 2, "gpus": 1.0}}, ["workers.count=2", "workers.gpus=1.0"]),
        ({"kind": "recipe", "base": {"workers": {"retries": 0}}}, ["base.workers.retries=0"]),
    ],
)
def test_what_debug_does_not_use_is_said(job: dict[str, Any], unused: list[str]) -> None:
    assert unused_in_debug(from_dict(job)) == unused
