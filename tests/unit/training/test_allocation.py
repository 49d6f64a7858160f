"""How workers divide a machine or a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import TrainJob, from_dict
from lehr.training.allocation import WorkerResources, allocate, capacity

TABLE: list[tuple[Any, list[tuple[float, float]], WorkerResources]] = [
    # workers,                     nodes (CPUs, GPUs),        what each worker gets
    ("auto", [(8, 0)], WorkerResources(1, 7, 0)),  # one CPU stays for reading data
    ("auto", [(4, 0), (8, 0)], WorkerResources(1, 8, 0)),  # a worker fits onto one node; the other node is left
    (2, [(4, 0), (4, 0)], WorkerResources(2, 3, 0)),
    (3, [(2, 0), (2, 0), (2, 0)], WorkerResources(3, 1, 0)),
    (2, [(1, 0), (1, 0)], WorkerResources(2, 1, 0)),  # nothing can be left: `lehr check` says so
    ("auto", [(16, 4), (16, 4)], WorkerResources(8, 3, 1)),
    ({"count": 4, "gpus": 2}, [(16, 4), (16, 4)], WorkerResources(4, 7, 2)),
    ({"count": 2, "cpus": 5}, [(8, 0), (8, 0)], WorkerResources(2, 5, 0)),
    ({"count": [2, 4]}, [(4, 0), (4, 0)], WorkerResources((2, 4), 1, 0)),
]


@pytest.mark.parametrize(("workers", "nodes", "share"), TABLE)
def test_workers_fit_onto_single_nodes_and_leave_a_cpu_for_data(
    workers: Any, nodes: list[tuple[float, float]], share: WorkerResources
) -> None:
    job = from_dict({"kind": "train", "workers": workers})
    assert isinstance(job, TrainJob)
    assert allocate(job, sum(c for c, _ in nodes), sum(g for _, g in nodes), nodes=nodes) == share


def test_capacity_counts_whole_workers_per_node() -> None:
    assert capacity([(4, 0), (4, 0)], 3, 0) == 2
    assert capacity([(16, 1), (16, 0)], 1, 1) == 1
    assert capacity([(2, 0)], 3, 0) == 0
