"""Prediction on Ray: Ray Data decodes on CPUs, and a pool of actors predicts, each with all members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from lehr.data.ray_data import piece
from lehr.data.ray_read import Parts
from lehr.job import WorkersSection
from lehr.predict.allocation import actors
from lehr.predict.part_files import PartResult
from lehr.predict.worker import PredictionSpec, Worker
from lehr.ray_cluster.connection import Resources
from lehr.ray_cluster.waiting import wait_for

DECODING = 2
"""How many parts are decoded at a time where no CPU is left beside the actors: the next one while one is predicted."""


class Actor:
    """A worker in Ray Data's pool: one decoded part in, one row with its result out."""

    def __init__(self, spec: ray.ObjectRef, threads: int) -> None:
        self.worker = Worker(ray.get(spec), threads)

    def __call__(self, block: pa.Table) -> pa.Table:
        result = self.worker.predict_part(*piece(block))
        return pa.table(
            {
                "number": [result.number],
                "rows": [result.rows],
                "ids": pa.array([[row for row, _ in result.unreadable]], pa.list_(pa.int64())),
                "ready": [result.ready],
                "why": pa.array([[why for _, why in result.unreadable]], pa.list_(pa.string())),
            }
        )


def predict_on_ray(
    spec: PredictionSpec,
    numbers: Sequence[int],
    workers: WorkersSection,
    there: Resources,
    show_status: Callable[[str], None] = lambda status: None,
) -> Iterator[PartResult]:
    """Predicts the parts with these numbers, in the order in which they become ready; see `actors`.

    Args:
        there: the machine's or the cluster's resources.
        show_status: called with what the actors wait for, on a cluster that has other users.

    Raises:
        LehrError: the cluster grows, but never to what the actors need.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    pool = actors(workers, there.cpus, there.gpus, len(numbers), there.nodes, there.limits)
    if there.nodes:
        wait_for(pool.actors, show_status)
    parts = Parts(spec.source, spec.wanted, numbers)
    how: dict[str, Any] = {} if pool.spare_cpus else {"num_cpus": 0, "concurrency": DECODING}
    decoded = ray.data.read_datasource(parts, override_num_blocks=len(numbers), **how)
    written = decoded.map_batches(
        Actor,
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        fn_constructor_args=(ray.put(spec), max(1, int(pool.actors.cpus))),
        compute=ActorPoolStrategy(size=pool.actors.most),
        num_cpus=pool.actors.cpus,
        num_gpus=pool.actors.gpus,
    )
    for table in written.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        for row in table.to_pylist():
            unreadable = tuple(zip(row["ids"], row["why"], strict=True))
            yield PartResult(row["number"], row["rows"], unreadable, row["ready"])
