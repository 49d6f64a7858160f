"""How the replicas that compute features divide a machine or a cluster."""

from __future__ import annotations

import pytest

from lehr.ray_cluster.connection import Resources
from lehr.training.allocation import WorkerResources
from lehr.transfer.ray_features import replica_resources

TABLE: list[tuple[Resources, int, WorkerResources]] = [
    # resources,                                            batches, replicas
    (Resources(8, 0), 1, WorkerResources(1, 8, 0)),
    (Resources(8, 0), 3, WorkerResources(3, 2, 0)),
    (Resources(8, 0), 100, WorkerResources(8, 1, 0)),
    (Resources(8, 2), 100, WorkerResources(2, 4, 1)),
    (Resources(6, 0, ((2, 0), (2, 0), (2, 0))), 1, WorkerResources(1, 2, 0)),  # a replica is on one node
    (Resources(6, 0, ((2, 0), (4, 0))), 2, WorkerResources(2, 2, 0)),
    (Resources(16, 2, ((4, 2), (12, 0))), 100, WorkerResources(2, 2, 1)),  # on the node with the GPUs
]


@pytest.mark.parametrize(("resources", "batches", "expected"), TABLE)
def test_every_replica_fits_on_a_node(resources: Resources, batches: int, expected: WorkerResources) -> None:
    assert replica_resources(resources, batches) == expected
