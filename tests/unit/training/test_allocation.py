"""How workers divide the CPUs and GPUs of a machine or a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import TrainJob, from_dict
from lehr.training.allocation import WorkerResources, allocate, capacity

TABLE: list[tuple[Any, list[tuple[float, float]], WorkerResources]] = [
    # workers,                     nodes (CPUs, GPUs),        what each worker gets
    ("auto", [(8, 0)], WorkerResources(1, 7, 0)),  # one CPU is left for reading data
    ("auto", [(4, 0), (8, 0)], WorkerResources(1, 8, 0)),  # a worker fits on one node; the other node is free
    (2, [(4, 0), (4, 0)], WorkerResources(2, 3, 0)),
    (3, [(2, 0), (2, 0), (2, 0)], WorkerResources(3, 1, 0)),
    (2, [(1, 0), (1, 0)], WorkerResources(2, 1, 0)),  # none can be left: `lehr check` says so
    ("auto", [(16, 4), (16, 4)], WorkerResources(8, 3, 1)),
    ({"count": 4, "gpus": 2}, [(16, 4), (16, 4)], WorkerResources(4, 7, 2)),
    ({"count": 2, "cpus": 5}, [(8, 0), (8, 0)], WorkerResources(2, 5, 0)),
    ({"count": [2, 4]}, [(4, 0), (4, 0)], WorkerResources((2, 4), 1, 0)),
]


@pytest.mark.parametrize(("workers", "nodes", "expected"), TABLE)
def test_each_worker_fits_on_one_node_and_a_cpu_is_left_for_data(
    workers: Any, nodes: list[tuple[float, float]], expected: WorkerResources
) -> None:
    job = from_dict({"kind": "train", "workers": workers})
    assert isinstance(job, TrainJob)
    assert allocate(job, sum(c for c, _ in nodes), sum(g for _, g in nodes), nodes=nodes) == expected


def test_capacity_counts_whole_workers_per_node() -> None:
    assert capacity([(4, 0), (4, 0)], 3, 0) == 2
    assert capacity([(16, 1), (16, 0)], 1, 1) == 1
    assert capacity([(2, 0)], 3, 0) == 0
