"""How replicas that compute features divide a machine or a cluster."""

from __future__ import annotations

import pytest

from lehr.ray_cluster.connection import Resources
from lehr.training.allocation import WorkerResources
from lehr.transfer.ray_features import replicas

TABLE: list[tuple[Resources, int, WorkerResources]] = [
    # what there is,                                       batches, replicas
    (Resources(8, 0), 1, WorkerResources(1, 8, 0)),
    (Resources(8, 0), 3, WorkerResources(3, 2, 0)),
    (Resources(8, 0), 100, WorkerResources(8, 1, 0)),
    (Resources(8, 2), 100, WorkerResources(2, 4, 1)),
    (Resources(6, 0, ((2, 0), (2, 0), (2, 0))), 1, WorkerResources(1, 2, 0)),  # a replica is on one node
    (Resources(6, 0, ((2, 0), (4, 0))), 2, WorkerResources(2, 2, 0)),
    (Resources(16, 2, ((4, 2), (12, 0))), 100, WorkerResources(2, 2, 1)),  # where the GPUs are
]


@pytest.mark.parametrize(("resources", "batches", "share"), TABLE)
def test_every_replica_fits_onto_a_node(resources: Resources, batches: int, share: WorkerResources) -> None:
    assert replicas(resources, batches) == share
