"""Ray's side of a prediction: Ray Data decodes on CPUs, and a pool of actors predicts, each with all members."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from lehr.data.ray_data import piece
from lehr.data.ray_read import Parts
from lehr.job import WorkersSection
from lehr.predict.worker import Desk, Done, Order


class Actor:
    """A desk in an actor of Ray Data's pool: one decoded part in, one row about what was written out."""

    def __init__(self, order: ray.ObjectRef, threads: int) -> None:
        self.desk = Desk(ray.get(order), threads)

    def __call__(self, block: pa.Table) -> pa.Table:
        done = self.desk.do(*piece(block))
        return pa.table(
            {
                "number": [done.number],
                "rows": [done.rows],
                "ids": pa.array([[row for row, _ in done.unreadable]], pa.list_(pa.int64())),
                "why": pa.array([[why for _, why in done.unreadable]], pa.list_(pa.string())),
            }
        )


def predict_on_ray(
    order: Order, size: tuple[int, int], channels: int, numbers: list[int], workers: WorkersSection
) -> Iterator[Done]:
    """Predicts the parts of these numbers, in whatever order they become ready.

    One actor per GPU; without GPUs one per CPU but one, which is left for decoding, each with one thread.

    Args:
        size: (height, width) of the images that the run takes, and `channels` their channels.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    total = ray.cluster_resources()
    gpus = workers.gpus or (1.0 if total.get("GPU") else 0.0)
    cpus = workers.cpus or 1.0
    room = int(total["GPU"] / gpus) if gpus else int((total["CPU"] - 1) / cpus)
    wanted = workers.count if isinstance(workers.count, int) else room
    count = max(1, min(wanted, room, len(numbers)))
    parts = Parts(order.source, size, channels, numbers)
    decoded = ray.data.read_datasource(parts, override_num_blocks=len(numbers))
    written = decoded.map_batches(
        Actor,
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        fn_constructor_args=(ray.put(order), max(1, int(cpus))),
        compute=ActorPoolStrategy(size=count),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    for table in written.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        for row in table.to_pylist():
            yield Done(row["number"], row["rows"], tuple(zip(row["ids"], row["why"], strict=True)))
