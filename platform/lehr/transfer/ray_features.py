"""Features computed with Ray Data: replicas of the network on the cluster's GPUs or CPUs, each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import ray
import torch
from ray.data import DataContext

from lehr.data.load import splits
from lehr.data.ray_data import Handle
from lehr.job import TrainJob
from lehr.own_modules import look_in
from lehr.ray_cluster.connection import Resources
from lehr.ray_cluster.waiting import wait_for
from lehr.training.allocation import WorkerResources, capacity
from lehr.training.setup import Plan
from lehr.transfer.features import BATCH_SIZE, FeatureExtractor, Features, rows_of_split
from lehr.trust import adopt, grants


class Replica:
    """One copy of the network, in an actor of Ray Data."""

    def __init__(
        self,
        job: TrainJob,
        shared: Mapping[str, Handle],
        random_weights: bool,
        threads: int,
        granted: tuple[str, ...],
    ) -> None:
        look_in(job.folder)
        adopt(granted)
        torch.set_num_threads(threads)
        self.plan = Plan.make(job, splits(job, {name: handle.open() for name, handle in shared.items()}))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.extractor = FeatureExtractor(self.plan, device, random_weights)

    def __call__(self, batch: dict[str, np.ndarray], split: str, view: int) -> dict[str, np.ndarray]:
        positions = torch.from_numpy(np.array(batch["data"], np.int64))
        found = self.extractor(rows_of_split(self.plan, split), positions, view)
        return {
            "id": found.ids.numpy(),
            "label": found.labels.numpy(),
            "features": found.values.numpy(),
        }


def compute_on_ray(
    plan: Plan,
    shared: Mapping[str, Handle],
    resources: Resources,
    show_status: Callable[[str], None],
    split: str,
    positions: torch.Tensor,
    *,
    views: int = 1,
    random_weights: bool = False,
    told: Callable[[int], None] = lambda done: None,
) -> Iterator[Features]:
    """The features of the rows of a split at `positions`, one view after the other.

    Args:
        shared: by split, handles of the decoded images or streams, which workers open.
        resources: the cluster's resources; see `replica_resources`.
        show_status: called with what the replicas wait for, on a cluster that has other users.
        told: called after each batch with the number of images done.
    """
    DataContext.get_current().enable_progress_bars = False
    pool = replica_resources(resources, -(-len(positions) // BATCH_SIZE))
    if resources.nodes:
        wait_for(pool, show_status)
    # One block per batch, made in this process: the replicas may hold every CPU, so no task could run beside them.
    chunks = [chunk.numpy() for chunk in positions.split(BATCH_SIZE)]
    for view in range(views):
        computed = ray.data.from_numpy(chunks).map_batches(
            Replica,  # type: ignore[arg-type]  # Ray's types allow no further arguments, which fn_args gives
            fn_constructor_args=(plan.job, shared, random_weights, int(pool.cpus), grants()),
            fn_args=(split, view),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=pool.most),
            num_gpus=pool.gpus,
            num_cpus=1 if pool.gpus else pool.cpus,
        )
        parts = []
        for batch in computed.iter_batches(batch_size=None, batch_format="numpy"):
            assert isinstance(batch, dict)
            ids, labels = torch.from_numpy(batch["id"].copy()), torch.from_numpy(batch["label"].copy())
            values = torch.from_numpy(np.asarray(batch["features"], np.float32).copy())
            parts.append(Features(ids, labels, torch.full_like(ids, view), values))
            told(view * len(positions) + sum(map(len, parts)))
        yield Features.concatenate(parts)


def replica_resources(resources: Resources, batches: int) -> WorkerResources:
    """One replica per GPU; without GPUs, replicas that divide the CPUs evenly. Never more replicas than batches.

    A replica runs on one node: one that asked for more CPUs than any node has would hang.
    """
    gpus = 1 if resources.gpus else 0
    count = max(1, min(int(resources.gpus) or int(resources.cpus), batches))
    nodes = resources.nodes or ((resources.cpus, resources.gpus),)
    even = max(1, int(resources.cpus) // count)
    cpus = next((each for each in range(even, 1, -1) if capacity(nodes, each, gpus) >= count), 1)
    return WorkerResources(count, cpus, gpus)
