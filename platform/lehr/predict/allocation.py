"""How the processes of a prediction divide what a machine or a cluster has."""

from __future__ import annotations

from lehr.job import WorkersSection


def actors(workers: WorkersSection, cpus: float, gpus: float, parts: int) -> tuple[int, float, float]:
    """How many processes predict, and the CPUs and GPUs of each.

    One process per GPU; without GPUs, one per CPU, except for one CPU that is left for decoding. No more than `parts`.
    """
    each_gpus = workers.gpus or (1.0 if gpus else 0.0)
    each_cpus = workers.cpus or 1.0
    room = int(gpus / each_gpus) if each_gpus else int((cpus - 1) / each_cpus)
    wanted = workers.count if isinstance(workers.count, int) else room
    return max(1, min(wanted, room, parts)), each_cpus, each_gpus
