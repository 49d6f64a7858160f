"""Bytes that an epoch reads, for 1 to 8 workers on one and two nodes, from a disk and from S3 (moto).

Every read of a file is counted where pyarrow opens it, in the processes that read. The workers are Ray actors that take
their batches and validate, on `ray.cluster_utils.Cluster`. What is asked: within 5 % of one pass over the file for all
workers together. Before there were data shards, each worker read each part: as many passes as workers.

    python -m tests.benchmarks.bytes_read [disk] [s3] [WORKERS …]
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

PARTS, ROWS, SIDE = 640, 10, 24
WORKERS, NODES = (1, 2, 4, 8), (1, 2)


class Counted(io.RawIOBase):
    """A file whose reads are counted."""

    def __init__(self, file: Any, log: str) -> None:
        self.file, self.log = file, log

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        return int(self.file.seek(place, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def read(self, size: int = -1) -> bytes:
        found: bytes = self.file.read(None if size < 0 else size)
        with open(f"{self.log}/{os.getpid()}", "a") as log:
            log.write(f"{len(found)}\n")
        return found


class CountedFiles:
    """A file system that counts what is read of its files."""

    def __init__(self, filesystem: Any, log: str) -> None:
        self.filesystem, self.log = filesystem, log

    def open_input_file(self, path: str) -> Any:
        import pyarrow as pa

        return pa.PythonFile(Counted(self.filesystem.open_input_file(path), self.log), mode="r")


@dataclass(frozen=True)
class CountedPart:
    """A row group whose file is read through `CountedFiles`."""

    part: Any
    log: str

    @property
    def rows(self) -> int:
        return int(self.part.rows)

    def labels(self) -> np.ndarray:
        return np.asarray(self.part.labels())

    def read(self, rows: Any = None) -> Any:
        from lehr.data.sources import parquet
        from lehr.data.sources.base import file_system

        def counted(path: str) -> tuple[Any, str]:
            found, inside = file_system(path)
            return CountedFiles(found, self.log), inside

        parquet.file_system = counted
        try:
            return self.part.read(rows)
        finally:
            parquet.file_system = file_system

    def name(self, row: int) -> str:
        return str(self.part.name(row))


def write(path: str) -> None:
    """A Parquet file of noise as raw pixels, many row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = np.random.default_rng(0).integers(0, 256, (PARTS * ROWS, SIDE * SIDE * 3), np.uint8)
    labels = pa.array(np.arange(len(pixels)) % 10)
    table = pa.table({"image": pa.array([each.tobytes() for each in pixels]), "label": labels})
    names = {"classes": ",".join(map(str, range(10))), "shape": f"{SIDE},{SIDE},3"}
    pq.write_table(table.replace_schema_metadata(names), path, row_group_size=ROWS)


def taken(log: str) -> int:
    """Bytes that were read since this was asked last."""
    total = 0
    for file in Path(log).iterdir():
        total += sum(map(int, file.read_text().split()))
        file.unlink()
    return total


def stream_of(path: str, log: str, decoder: Any) -> tuple[Any, Any]:
    from lehr.data.load import OpenedSources
    from lehr.job import from_dict

    data = {"source": "parquet", "path": path, "cache": "stream", "validation": 0.1, "stratify": "none"}
    job: Any = from_dict({"kind": "train", "data": data, "train": {"batch_size": 64}})
    stream = OpenedSources(job).stream(decoder)["train"]
    parts = tuple(CountedPart(part, log) for part in stream.source.parts)
    return job, replace(stream, source=replace(stream.source, parts=parts))


def epoch(job: Any, shared: Any, rank: int, workers: int) -> int:
    """Takes the batches of a worker."""
    from lehr.data.augment import Augment
    from lehr.data.batches import batches
    from lehr.data.load import splits

    rows = splits(job, {"train": shared.open()}).train
    sampler = rows.sampler(job.train.batch_size, 0, job.data.shards)  # type: ignore[attr-defined]
    return sum(len(each.ids) for each in batches(rows, sampler, Augment([], 0), 0, 0, rank, workers))


def passes(path: str, log: str, workers: int, nodes: int) -> tuple[float, float]:
    """How many passes over the data an epoch took, and its seconds."""
    import ray

    from lehr.data.ray_data import RayDecoder, SharedStream
    from lehr.data.streaming import ThreadDecoder

    job, alone = stream_of(path, log, ThreadDecoder(1))
    taken(log)
    for part in alone.source.parts:
        part.read()
    once = taken(log)
    _, stream = stream_of(path, log, RayDecoder(1, spare_cpus=False))
    shared = SharedStream.put(stream)
    taken(log)

    @ray.remote(num_cpus=0)
    class Worker:
        def epoch(self, rank: int) -> int:
            return epoch(job, shared, rank, workers)

    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]][:nodes]
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    each = [
        Worker.options(  # type: ignore[attr-defined]
            scheduling_strategy=NodeAffinitySchedulingStrategy(alive[rank * nodes // workers], soft=False)
        ).remote()
        for rank in range(workers)
    ]
    began = time.perf_counter()
    rows = sum(ray.get([worker.epoch.remote(rank) for rank, worker in enumerate(each)]))
    assert rows == PARTS * ROWS * 9 // 10, rows
    seconds = time.perf_counter() - began
    for worker in each:
        ray.kill(worker)
    return taken(log) / once, seconds


@contextmanager
def bucket(folder: str) -> Iterator[str]:
    """An S3 bucket of moto with the file in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        import pyarrow.fs as fs

        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        filesystem, _ = fs.FileSystem.from_uri("s3://data?allow_bucket_creation=true")
        filesystem.create_dir("data")
        fs.copy_files(f"{folder}/set.parquet", "data/set.parquet", destination_filesystem=filesystem)
        yield "s3://data/set.parquet"
    finally:
        server.terminate()


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    numbers = [int(each) for each in sys.argv[1:] if each.isdecimal()]
    wanted = [each for each in sys.argv[1:] if not each.isdecimal()] or ["disk", "s3"]
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        os.mkdir(log)
        write(f"{folder}/set.parquet")
        with bucket(folder) as remote:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
            cluster.add_node(num_cpus=2)
            ray.init(address=cluster.address, log_to_driver=False)
            try:
                print("| from | workers | nodes | passes over the data | seconds |\n|---|---|---|---|---|")
                for place, path in (("disk", f"{folder}/set.parquet"), ("s3", remote)):
                    for nodes in NODES if place in wanted else ():
                        for workers in numbers or WORKERS:
                            if workers >= nodes:
                                found, seconds = passes(path, log, workers, nodes)
                                print(f"| {place} | {workers} | {nodes} | {found:.3f} | {seconds:.1f} |", flush=True)
            finally:
                ray.shutdown()
                cluster.shutdown()


if __name__ == "__main__":
    main()
