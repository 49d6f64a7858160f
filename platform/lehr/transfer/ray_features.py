"""Features with Ray Data: replicas of the network on the cluster's GPUs or CPUs, each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray
import torch
from ray.data import DataContext

from lehr.data.load import splits
from lehr.job import TrainJob
from lehr.paths import add_to_path
from lehr.ray_cluster.connection import Resources
from lehr.ray_cluster.waiting import wait_for
from lehr.training.allocation import WorkerResources, capacity
from lehr.training.setup import Plan
from lehr.transfer.features import BATCH, Extractor, Features, rows_of


class Replica:
    """One copy of the network, in an actor of Ray Data."""

    def __init__(self, job: TrainJob, shared: dict[str, Any], random: bool, threads: int) -> None:
        add_to_path(job.folder)
        torch.set_num_threads(threads)
        self.plan = Plan.make(job, splits(job, {name: handle.open() for name, handle in shared.items()}))
        self.extract = Extractor(self.plan, torch.device("cuda" if torch.cuda.is_available() else "cpu"), random)

    def __call__(self, batch: dict[str, np.ndarray], split: str, view: int) -> dict[str, np.ndarray]:
        positions = torch.from_numpy(np.array(batch["data"], np.int64))
        found = self.extract(rows_of(self.plan, split), positions, view)
        return {
            "id": found.ids.numpy(),
            "label": found.labels.numpy(),
            "features": found.values.numpy(),
        }


def compute_with_ray(
    plan: Plan,
    shared: dict[str, Any],
    resources: Resources,
    say: Callable[[str], None],
    split: str,
    positions: torch.Tensor,
    *,
    views: int = 1,
    random: bool = False,
) -> Iterator[Features]:
    """The features of the rows of a split at `positions`, one view after the other.

    Args:
        shared: by split, handles of the decoded images or streams, as workers open them.
        resources: what the cluster has; see `replicas`.
        say: told what the replicas wait for, on a cluster that others use too.
    """
    DataContext.get_current().enable_progress_bars = False
    share = replicas(resources, -(-len(positions) // BATCH))
    if resources.nodes:
        wait_for(share, say)
    # One block for each batch, made here: the replicas may hold every CPU, so there is none for tasks beside them.
    chunks = [chunk.numpy() for chunk in positions.split(BATCH)]
    for view in range(views):
        found = ray.data.from_numpy(chunks).map_batches(
            Replica,
            fn_constructor_args=(plan.job, shared, random, int(share.cpus)),
            fn_args=(split, view),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=share.most),
            num_gpus=share.gpus,
            num_cpus=1 if share.gpus else share.cpus,
        )
        parts = []
        for batch in found.iter_batches(batch_size=None, batch_format="numpy"):
            ids, labels = torch.from_numpy(batch["id"].copy()), torch.from_numpy(batch["label"].copy())
            values = torch.from_numpy(np.asarray(batch["features"], np.float32).copy())
            parts.append(Features(ids, labels, torch.full_like(ids, view), values))
        yield Features.together(parts)


def replicas(resources: Resources, batches: int) -> WorkerResources:
    """One replica on every GPU, else on the CPUs, which they share out; no more than there are batches for.

    A replica is on one node: one that asked for more than any node has would wait for ever.
    """
    gpus = 1 if resources.gpus else 0
    count = max(1, min(int(resources.gpus) or int(resources.cpus), batches))
    nodes = resources.nodes or ((resources.cpus, resources.gpus),)
    even = max(1, int(resources.cpus) // count)
    return WorkerResources(
        count, next((each for each in range(even, 1, -1) if capacity(nodes, each, gpus) >= count), 1), gpus
    )
