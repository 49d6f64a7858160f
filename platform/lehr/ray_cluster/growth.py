"""Whether the connected cluster grows, to what, and what its autoscaler says that it can never place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.exceptions import RayError

ANSWER_SECONDS = 5
UNKNOWN: Mapping[str, float] = {"CPU": math.inf, "GPU": math.inf}
"""The limits of a cluster whose autoscaler does not tell them."""


def limits() -> dict[str, float]:
    """What the connected cluster can grow to, by resource; empty where it does not grow.

    Ray's second autoscaler, which KubeRay uses, publishes no limits: then they are infinite, and `never_fits` says
    later what it cannot place.
    """
    from ray._private.state import state

    if known := state.get_max_resources_from_cluster_config():
        return dict(known)
    return dict(UNKNOWN) if is_autoscaled(cluster_status()) else {}


def cluster_status() -> GetClusterStatusReply:
    """What the connected cluster's autoscaler says; empty where it does not answer."""
    reply = GetClusterStatusReply()
    try:
        client = GcsClient(ray.get_runtime_context().gcs_address)
        reply.ParseFromString(client.get_cluster_status(timeout_s=ANSWER_SECONDS))
    except (RayError, RuntimeError, OSError):
        pass
    return reply


def is_autoscaled(reply: GetClusterStatusReply) -> bool:
    """Whether nodes are added: an autoscaler gives each node a type. (One that only watches runs on every head.)"""
    return any(node.ray_node_type_name for node in reply.cluster_resource_state.node_states)


def never_fits(reply: GetClusterStatusReply, group: str) -> bool:
    """Whether an autoscaled cluster can never place a placement group (its id in hex).

    The autoscaler also calls a group infeasible while others hold what the group needs. So only an idle cluster counts,
    of which no node is on its way.
    """
    state, nodes = reply.autoscaling_state, reply.cluster_resource_state.node_states
    infeasible = any(each.details.startswith(group) for each in state.infeasible_gang_resource_requests)
    idle = all(
        node.available_resources.get(name, 0.0) >= node.total_resources.get(name, 0.0)
        for node in nodes
        for name in ("CPU", "GPU")
    )
    coming = state.pending_instance_requests or state.pending_instances
    return infeasible and idle and not coming and is_autoscaled(reply)
