"""Prediction on Ray: Ray Data decodes on CPUs, and a pool of actors predicts, each with all members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from lehr.data.ray_data import piece
from lehr.data.ray_read import Parts
from lehr.job import WorkersSection
from lehr.predict.allocation import actors
from lehr.predict.part_files import PartResult
from lehr.predict.worker import PredictionSpec, Worker


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
                "why": pa.array([[why for _, why in result.unreadable]], pa.list_(pa.string())),
            }
        )


def predict_on_ray(spec: PredictionSpec, numbers: Sequence[int], workers: WorkersSection) -> Iterator[PartResult]:
    """Predicts the parts with these numbers, in the order in which they become ready; see `actors`."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    total = ray.cluster_resources()
    count, cpus, gpus = actors(workers, total["CPU"], total.get("GPU", 0.0), len(numbers))
    parts = Parts(spec.source, spec.wanted, numbers)
    decoded = ray.data.read_datasource(parts, override_num_blocks=len(numbers))
    written = decoded.map_batches(
        Actor,
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        fn_constructor_args=(ray.put(spec), max(1, int(cpus))),
        compute=ActorPoolStrategy(size=count),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    for table in written.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        for row in table.to_pylist():
            yield PartResult(row["number"], row["rows"], tuple(zip(row["ids"], row["why"], strict=True)))
