"""How the processes of a prediction divide what a machine or a cluster has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lehr.job import WorkersSection
from lehr.training.allocation import Nodes, WorkerResources, capacity


@dataclass(frozen=True)
class Pool:
    """The processes that predict.

    Attributes:
        actors: how many, and the CPUs and GPUs of each.
        spare_cpus: whether a CPU is left beside them. Where none is, decoding must not ask for one, or it would wait
            for ever for a CPU that is held by whoever waits for its images.
    """

    actors: WorkerResources
    spare_cpus: bool


def actors(
    workers: WorkersSection,
    cpus: float,
    gpus: float,
    parts: int,
    nodes: Nodes = (),
    limits: Mapping[str, float] | None = None,
) -> Pool:
    """How many processes predict, and the CPUs and GPUs of each.

    One process per GPU; without GPUs, one per CPU, except for one CPU that is left for decoding where there are two. No
    more than `parts`, and no more than fit on the nodes.

    Args:
        nodes: of a cluster; empty for this machine, whose own Ray counts one CPU more than `cpus`.
        limits: what the cluster can grow to, by resource; empty where it does not grow.
    """
    each_gpus = workers.gpus or (1.0 if gpus else 0.0)
    each_cpus = workers.cpus or 1.0
    there = nodes or ((cpus + 1, gpus),)
    total = sum(count for count, _ in there)
    room = capacity(there, each_cpus, each_gpus)
    if not each_gpus and room > 1 and total - room * each_cpus < 1:
        room -= 1
    wanted = workers.count if isinstance(workers.count, int) else max(1, room)
    for name, each in (("CPU", each_cpus), ("GPU", each_gpus)):
        if limits and each and wanted * each > limits.get(name, 0.0):
            wanted = max(1, room, int(limits.get(name, 0.0) / each))
    count = max(1, min(wanted, parts, wanted if limits else room))
    return Pool(WorkerResources(count, each_cpus, each_gpus), total - count * each_cpus >= 1)
