"""`python -m lehr.ray_cluster.draining SECONDS`: tells Ray that this node is about to be taken away.

The hook of a worker's pod runs it when Kubernetes ends the pod. Ray then places nothing on the node any more, and Ray
Train warns the workers, who save a checkpoint and leave.
"""

from __future__ import annotations

import os
import sys
import time

import psutil
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]


def drain_this_node(address: str, seconds: float) -> bool:
    """Asks the cluster at `address` (host:port) to drain the nodes of this machine, which has so many seconds left.

    Returns:
        Whether one was found, and the cluster accepted it.
    """
    client = GcsClient(address=address)
    here = {each.address for found in psutil.net_if_addrs().values() for each in found}
    deadline = int((time.time() + seconds) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    nodes = [
        node.node_id
        for node in client.get_all_node_info().values()
        if node.node_manager_address in here and node.state == node.ALIVE
    ]
    asked = [client.drain_node(node.hex(), reason, "the pod is being ended", deadline)[0] for node in nodes]
    return any(asked)


if __name__ == "__main__":
    sys.exit(0 if drain_this_node(os.environ["RAY_ADDRESS"], float(sys.argv[1])) else 1)
