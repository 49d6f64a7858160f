"""How a job's workers divide what a machine or a cluster has."""

from __future__ import annotations

from collections.abc import Sequence
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


def capacity(nodes: Nodes, cpus: float, gpus: float) -> int:
    """How many workers of this size fit on the nodes at once."""
    return sum(min(int(c // cpus), int(g // gpus) if gpus else int(c // cpus)) for c, g in nodes)


def _leaves_one(nodes: Nodes, workers: int, cpus: float, gpus: float) -> bool:
    return capacity(nodes, cpus, gpus) >= workers and sum(c for c, _ in nodes) - workers * cpus >= 1
