"""How a cluster is divided among trials that run side by side."""

from __future__ import annotations

from dataclasses import dataclass

from lehr.job import TrainJob
from lehr.training.allocation import Nodes, WorkerResources, capacity


@dataclass(frozen=True)
class Slots:
    """The division of a cluster among trials.

    Attributes:
        count: how many trials run side by side.
        cpus: how many CPUs there are for all of them.
        share: the workers of one trial, and the CPUs and GPUs of each worker.
    """

    count: int
    cpus: float
    share: WorkerResources

    @property
    def nested(self) -> bool:
        """Whether a trial has several workers, in processes of their own."""
        return self.share.most > 1

    @property
    def of_trial(self) -> dict[str, float]:
        """The resources that Tune reserves for a trial's process.

        If the workers have processes of their own it is a megabyte of memory, since Tune needs something to reserve:
        even a hundredth of a CPU might be missing for the last worker.
        """
        return {"memory": 1e6} if self.nested else {"CPU": self.share.cpus, "GPU": self.share.gpus}


def slots(job: TrainJob, cpus: float, gpus: float, most: int | None = None, nodes: Nodes = ()) -> Slots:
    """Divides a cluster among trials of this job.

    Each worker of a trial gets what `workers` asks for, by default one CPU. `auto` means one worker, on its own GPU (or
    the fraction in `workers.gpus`) if there are GPUs. CPUs that would stay idle, because there are fewer GPUs or no
    more than `most` trials, are divided among the trials as long as each worker fits on one of the `nodes`.
    """
    section = job.workers
    workers: int | tuple[int, int] = 1
    per_worker_gpus = section.gpus
    if section.count == "auto":
        per_worker_gpus = section.gpus or min(1.0, gpus)
    else:
        workers = section.count if isinstance(section.count, int) else (section.count[0], section.count[1])
    widest = workers if isinstance(workers, int) else workers[1]
    count = max(1, int(cpus / ((section.cpus or 1) * widest) + 1e-9))
    if per_worker_gpus:
        count = min(count, max(1, int(gpus / (per_worker_gpus * widest) + 1e-9)))
    count = max(1, min(count, most or count))
    each = section.cpus or max(1, int(cpus / (count * widest)))
    if nodes:
        if not section.cpus:
            sizes = range(int(each), 1, -1)
            each = next((size for size in sizes if capacity(nodes, size, per_worker_gpus) >= count * widest), 1)
        count = max(1, min(count, capacity(nodes, each, per_worker_gpus) // widest))
    return Slots(count, cpus, WorkerResources(workers, each, per_worker_gpus))
