"""How a job's workers divide what a machine or a cluster has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lehr.job import Training

Nodes = Sequence[tuple[float, float]]
"""(CPUs, GPUs) of each node."""


@dataclass(frozen=True)
class WorkerResources:
    """How many workers there are, and how many CPUs and GPUs each of them gets."""

    workers: int | tuple[int, int]
    cpus: float
    gpus: float

    @property
    def most(self) -> int:
        """The largest number of workers that may run."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def least(self) -> int:
        """The smallest number of workers that may start."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]


def allocate(job: Training, cpus: float, gpus: float, streamed: bool = False, nodes: Nodes = ()) -> WorkerResources:
    """How a job's workers divide a machine's or a cluster's CPUs and GPUs.

    `auto` uses every GPU, one worker each; without GPUs one worker uses all CPUs. A given number of workers divides
    the CPUs evenly, at least one each. On a cluster each worker must fit on one of its `nodes`, and one CPU is left for
    reading data. Workers on GPUs that stream their data use one CPU each and leave the others for decoding.
    """
    section = job.workers
    if section.count == "auto":
        workers: int | tuple[int, int] = max(1, int(gpus))
        per_worker_gpus = section.gpus or min(1.0, gpus)
    else:
        workers = section.count if isinstance(section.count, int) else (section.count[0], section.count[1])
        per_worker_gpus = section.gpus
    most = workers if isinstance(workers, int) else workers[1]
    even = max(1, int(cpus) // most)
    if nodes:
        even = next((each for each in range(even, 1, -1) if _leaves_one(nodes, most, each, per_worker_gpus)), 1)
    if streamed and per_worker_gpus:
        even = 1
    return WorkerResources(workers, section.cpus or even, per_worker_gpus)


def too_much(
    each: WorkerResources, cpus: float, gpus: float, nodes: Nodes = (), limits: Mapping[str, float] | None = None
) -> tuple[str, str] | None:
    """What workers ask for that will never be there: the field of `workers`, and a sentence. None if they can start.

    Args:
        nodes: of a cluster; empty for this machine, whose own Ray counts as many CPUs as the workers ask for.
        limits: what the cluster can grow to, by resource; empty where it does not grow.
    """
    where, most = ("the cluster", limits or {}) if nodes else ("this machine", {})
    who = f"{each.least} worker{'s' * (each.least != 1)} with {{:g}} {{}}{{}}"
    for unit, wanted, there in (("GPU", each.gpus, gpus), ("CPU", each.cpus, cpus if nodes else float("inf"))):
        can_be = max(there, most.get(unit, 0.0))
        if each.least * wanted > can_be:
            asked = who.format(wanted, unit, "s" * (wanted != 1) + " each" * (each.least != 1))
            has = f"{where} has {there:g}" + (f" and can grow to {can_be:g}" if can_be > there else "")
            fits = int(can_be // each.least) if unit == "CPU" else 0
            less = f"workers.{unit.lower()}s={fits}" if fits or unit == "GPU" else "a smaller workers.count"
            return f"{unit.lower()}s", f"{asked}, and {has}; type: {less}"
    if nodes and not most and capacity(nodes, each.cpus, each.gpus) < each.least:
        size = f"{each.cpus:g} CPUs" + (f" and {each.gpus:g} GPUs" if each.gpus else "")
        largest = max(count for count, _ in nodes)
        what = f"a worker with {size} must fit onto one node, and the nodes have room for"
        return (
            "cpus",
            f"{what} {capacity(nodes, each.cpus, each.gpus)} of {each.least}; the largest has {largest:g} CPUs",
        )
    return None


def capacity(nodes: Nodes, cpus: float, gpus: float) -> int:
    """How many workers of this size fit on the nodes at once."""
    return sum(min(int(c // cpus), int(g // gpus) if gpus else int(c // cpus)) for c, g in nodes)


def _leaves_one(nodes: Nodes, workers: int, cpus: float, gpus: float) -> bool:
    return capacity(nodes, cpus, gpus) >= workers and sum(c for c, _ in nodes) - workers * cpus >= 1
