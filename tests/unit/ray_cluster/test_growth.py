"""What an autoscaler says of a cluster, from its reply: whether it grows, and what it can never place."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

from lehr.ray_cluster import waiting
from lehr.ray_cluster.growth import is_autoscaled, never_fits
from lehr.training.allocation import WorkerResources

GROUP = "9907dac735e48016eac20482208401000000"


def reply(kind: str = "cpu", free: float = 2.0, coming: bool = False) -> GetClusterStatusReply:
    """As the autoscaler of Ray 2.60 answers while a placement group waits."""
    found = GetClusterStatusReply()
    node = found.cluster_resource_state.node_states.add(ray_node_type_name=kind)
    node.total_resources["CPU"], node.available_resources["CPU"] = 2.0, free
    found.autoscaling_state.infeasible_gang_resource_requests.add(details=f"{GROUP}:PACK|PENDING")
    if coming:
        found.autoscaling_state.pending_instance_requests.add(ray_node_type_name=kind, count=1)
    return found


def test_a_cluster_whose_nodes_have_types_grows() -> None:
    assert is_autoscaled(reply())
    assert not is_autoscaled(reply(kind="")), "the autoscaler that only watches, which every head has"
    assert not is_autoscaled(GetClusterStatusReply()), "none answers"


def test_a_group_never_fits_where_the_idle_cluster_cannot_place_it() -> None:
    assert never_fits(reply(), GROUP)
    assert not never_fits(reply(free=1.0), GROUP), "others hold what it needs"
    assert not never_fits(reply(coming=True), GROUP), "a node is on its way"
    assert not never_fits(reply(), "another"), "another group"
    assert not never_fits(GetClusterStatusReply(), GROUP)


def test_the_sentence_says_what_the_cluster_cannot_grow_to() -> None:
    said = waiting.too_large(WorkerResources(2, 40.0, 0.0))
    assert said.startswith("the cluster can never grow to 2 workers with 40 CPUs each: no group of its nodes has room")
