"""What 1,000 workers on 125 nodes would wait for, reading ImageNet: a model whose parts were measured here.

The parts that decide who reads what are real: `EpochOrder`, its windows and pieces, and `Slices.reach`. The rest is
arithmetic on rates. Measured when this runs: reading a Parquet row group from the page cache and taking its columns
(seconds a part), and decoding 500 × 375 JPEG to 224 × 224 on one CPU. Assumed, as options: the network of a node and of
the store, CPUs of a node, and how fast a worker trains. Each resource is taken to be used evenly, so the epoch takes as
long as its slowest resource; queues and stragglers are not in it.

    python -m tests.benchmarks.simulate_streaming [--workers 1000] [--per-node 8] [--shards 1000] [--parts 8192]
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from dataclasses import dataclass

import numpy as np

from lehr.data.epoch_order import Dealing, EpochOrder, shards_in_use, slices
from lehr.data.row_sets import RowSet

ROWS, IMAGE_BYTES, SIDE = 1_281_167, 110_000, 224


@dataclass(frozen=True)
class Rates:
    """Measured on one CPU of this machine."""

    part_seconds: float
    bytes_a_second: float
    images_a_second: float


def measured(rows: int) -> Rates:
    """Seconds of a part beside its bytes, bytes and images a second of one CPU."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from lehr.data.decode import decode
    from lehr.data.pixels import PixelFormat
    from lehr.data.sources.parquet import ParquetPart

    random, encoded = np.random.default_rng(0), []
    for _ in range(32):
        small = random.integers(0, 256, (24, 32, 3), np.uint8)
        image = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(image) + random.normal(0, 12, (375, 500, 3)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=92)
        encoded.append(file.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("small", 1), ("large", rows)):
            table = pa.table({"image": [encoded[row % 32] for row in range(count)], "label": [0] * count})
            pq.write_table(table, f"{folder}/{name}")
        seconds = {name: _fastest(ParquetPart(f"{folder}/{name}", 0, 0, 1).read) for name in ("small", "large")}
    bytes_of = sum(len(encoded[row % 32]) for row in range(rows))
    table = pa.table({"image": pa.array(encoded, pa.large_binary()), "label": [0] * 32})
    decoding = _fastest(lambda: decode(table, PixelFormat((SIDE, SIDE), 3)))
    return Rates(seconds["small"], bytes_of / max(1e-9, seconds["large"] - seconds["small"]), 32 / decoding)


def _fastest(work: object, times: int = 5) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        found.append(time.perf_counter() - began)
    return min(found)


@dataclass(frozen=True)
class Load:
    """Of one epoch, of the node that has most to do.

    Attributes:
        parts: that it reads. images: that it decodes. all_parts: that all nodes read.
    """

    parts: int
    images: int
    all_parts: int


def loads(parts: int, batch: int, shards: int, workers: int, per_node: int) -> dict[str, Load]:
    """Who reads and decodes what, before there were data shards and now."""
    counts = np.diff(np.linspace(0, ROWS, parts + 1).astype(np.int64))
    used = shards_in_use(shards, parts)
    window = max(1, min((256 << 20) // (3 * SIDE * SIDE), ROWS // 8) // used)
    order = EpochOrder.shuffled(RowSet(ROWS), counts, Dealing(ROWS, batch, used), window, 1)
    nodes = -(-workers // per_node)
    reach = slices(batch, used).reach(workers, mixes=False)
    of_node = np.zeros((nodes, used), bool)
    np.logical_or.at(of_node, np.arange(workers) // per_node, reach)
    shard = np.searchsorted(order.dealing.starts[1:], order.cuts[:-1], side="right")
    pieces, rows = np.zeros(used, np.int64), np.zeros(used, np.int64)
    for number in range(len(order.cuts) - 1):
        of_window = order.pieces(number)
        pieces[shard[number]] += len(of_window)
        rows[shard[number]] += sum(count for _, _, count in of_window)
    read, decoded = of_node @ pieces, of_node @ rows
    # Before: a worker's rows r, r + n, … of each batch lie in all parts, so that it read each part for some rows of it.
    share = -(-batch // workers) * -(-ROWS // batch)
    return {
        "before": Load(parts * per_node, share * per_node, parts * workers),
        "now": Load(int(read.max()), int(decoded.max()), int(read.sum())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--per-node", type=int, default=8)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=8192, help="row groups of the data, of about 17 MB")
    parser.add_argument("--batch", type=int, default=32_000)
    parser.add_argument("--cpus", type=int, default=64, help="of a node that decode")
    parser.add_argument("--network", type=float, default=12.5e9, help="bytes a second of a node (100 Gbit/s)")
    parser.add_argument("--store", type=float, default=100e9, help="bytes a second of the store, to all nodes")
    parser.add_argument("--trained", type=float, default=2500, help="images a second of a worker")
    chosen = parser.parse_args()
    rates = measured(min(200, ROWS // chosen.parts))
    print(
        f"measured here: {rates.part_seconds * 1e3:.1f} ms a part, {rates.bytes_a_second / 1e9:.2f} GB/s, "
        f"{rates.images_a_second:.0f} images a second and CPU"
    )
    part_bytes, nodes = ROWS * IMAGE_BYTES / chosen.parts, -(-chosen.workers // chosen.per_node)
    print(f"{chosen.workers:,} workers on {nodes} nodes, {chosen.parts:,} parts of {part_bytes / 1e6:.0f} MB, "
          f"{shards_in_use(chosen.shards, chosen.parts):,} data shards\n")  # fmt: skip
    print("| | before | now |\n|---|---|---|")
    found = loads(chosen.parts, chosen.batch, chosen.shards, chosen.workers, chosen.per_node)
    a_part = rates.part_seconds + part_bytes / rates.bytes_a_second
    rows = {
        name: {
            "passes over the data, all nodes": load.all_parts / chosen.parts,
            "read by a node, GB": load.parts * part_bytes / 1e9,
            "seconds: training": ROWS / (chosen.workers * chosen.trained),
            "seconds: network of a node": load.parts * part_bytes / chosen.network,
            "seconds: the store": load.all_parts * part_bytes / chosen.store,
            "seconds: reading parts": load.parts * a_part / chosen.cpus,
            "seconds: decoding": load.images / rates.images_a_second / chosen.cpus,
        }
        for name, load in found.items()
    }
    for what in rows["now"]:
        print(f"| {what} | {rows['before'][what]:,.2f} | {rows['now'][what]:,.2f} |")
    print("| slowest |", " | ".join(slowest(each) for each in rows.values()), "|")


def slowest(row: dict[str, float]) -> str:
    seconds = {name.removeprefix("seconds: "): value for name, value in row.items() if name.startswith("seconds")}
    first = max(seconds, key=lambda name: seconds[name])
    return f"{first}, {seconds[first]:,.1f} s an epoch, {seconds[first] / seconds['training']:.1f} × training"


if __name__ == "__main__":
    main()
