"""Prediction throughput: lehr's pool of actors against a DataLoader loop, and five members against one.

CIFAR-10 as PNG in Parquet, small_cnn of width 8 with random weights, the same cores for both sides. The loop is what a
careful user writes: a Dataset that decodes, DataLoader workers, batches of 256, inference mode, and one Parquet file at
the end. Each side predicts few rows and then many, until the last row is written, on a Ray cluster that is already up.
The throughput is that of the additional rows, so start-up (of actors, of the loader's workers) does not count; it is
printed separately.

    python -m tests.benchmarks.predict [DATA.parquet] [rounds]
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lehr import models
from lehr.data.pixels import PixelFormat
from lehr.data.sources import open_source
from lehr.job import DataSection, WorkersSection, from_dict, to_dict
from lehr.machine import cores
from lehr.predict import EnsembleDescription, EnsembleMember, Network, load_predictor
from lehr.predict.ray_predict import predict_on_ray
from lehr.predict.source_parts import prepare_source
from lehr.predict.worker import PredictionSpec, decode_ahead
from lehr.ray_cluster.connection import Resources, connect
from lehr.runs import Folder, RunFolder, write_model
from tests.benchmarks import cifar
from tests.benchmarks.alternating import compare

FEW, MANY, BATCH, WIDTH, MEMBERS = 4096, 32_768, 256, 8, 5


def make_run(place: Path, seed: int) -> RunFolder:
    run = RunFolder.create(Folder.at(place), to_dict(from_dict({"kind": "train", "seed": seed})))
    model = models.build("small_cnn", 3, 10, {"width": WIDTH}, seed)
    about = {"height": 32, "width": 32, "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    spec = {"name": "small_cnn", "options": {"width": WIDTH}}
    write_model(
        run.folder, model.state_dict(), {"model": spec, "classes": classes, "preprocess": about, "dtype": "float32"}
    )
    return run


def ours(data: Path, run: RunFolder, out: Path) -> float:
    """Seconds that the actors of `lehr predict` take, on a Ray cluster that is already up."""
    began = time.perf_counter()
    predictor = load_predictor(run.folder)
    section = DataSection(source="parquet", path=str(data))
    source = prepare_source(open_source(section, lambda field, what: AssertionError(what)), predictor)  # type: ignore[arg-type,return-value]
    spec = PredictionSpec(run.folder, Folder.at(out), source, predictor.wanted, False, BATCH, os.getcwd(), "benchmark")
    results = predict_on_ray(spec, range(len(source.parts)), WorkersSection(), Resources(cores(), 0))
    assert sum(result.rows for result in results) == source.rows
    return time.perf_counter() - began


class Rows(Dataset[Any]):
    def __init__(self, path: Path) -> None:
        self.images: list[Any] = pq.read_table(path)["image"].to_pylist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        pixels = np.asarray(Image.open(io.BytesIO(self.images[row])).convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@torch.inference_mode()
def by_hand(data: Path, run: RunFolder, out: Path) -> float:
    """Seconds that the loop takes that a user would write."""
    began = time.perf_counter()
    torch.set_num_threads(cores())
    network = load_predictor(run.folder).networks[0]
    assert isinstance(network, Network)
    model = network.model
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.5,) * 3, (0.25,) * 3))
    loader = DataLoader(Rows(data), batch_size=BATCH, num_workers=cores())
    found = [model((images.float() / 255 - mean) / std).softmax(dim=1) for images in loader]
    probabilities = torch.cat(found).numpy()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(probabilities.reshape(-1)), probabilities.shape[1])
    pq.write_table(pa.table({"id": pa.array(np.arange(len(probabilities))), "probabilities": flat}), out)
    return time.perf_counter() - began


def speed(side: Callable[[Path], float], folder: Path, startups: list[float]) -> float:
    """Images per second, over the rows that the large file has more than the small one."""
    few, many = side(folder / "few.parquet"), side(folder / "many.parquet")
    startups.append(few - FEW * (many - few) / (MANY - FEW))
    return (MANY - FEW) / (many - few)


def decoding(data: Path) -> float:
    """Seconds to decode all rows on one core, in this process."""
    source = open_source(DataSection(source="parquet", path=str(data)), lambda field, what: AssertionError(what))  # type: ignore[arg-type,return-value]
    began = time.perf_counter()
    for _ in decode_ahead(source, PixelFormat((32, 32), 3), range(len(source.parts)), 1):
        pass
    return time.perf_counter() - began


def main(path: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place, connect(1, None):
        folder = Path(place)
        startups: dict[str, list[float]] = {"lehr": [], "loader": []}
        table = pq.ParquetFile(path)
        for name, rows in (("few", FEW), ("many", MANY)):
            with pq.ParquetWriter(folder / f"{name}.parquet", table.schema_arrow) as writer:
                for batch in table.iter_batches(batch_size=FEW):
                    writer.write_batch(batch, row_group_size=1024)
                    rows -= FEW
                    if rows == 0:
                        break
        one = make_run(folder / "one", 0)
        five = RunFolder.create(Folder.at(folder / "five"), one.job)
        for seed in range(MEMBERS):
            make_run(folder / f"five/members/{seed + 1:02}", seed)
        members = tuple(EnsembleMember(f"members/{number + 1:02}", 1.0) for number in range(MEMBERS))
        EnsembleDescription("probabilities", members, "equal").write(five.folder)
        ray.data.DataContext.get_current().enable_progress_bars = False

        def single() -> float:
            return speed(lambda data: ours(data, one, folder / "out"), folder, startups["lehr"])

        def loop() -> float:
            return speed(lambda data: by_hand(data, one, folder / "loop.parquet"), folder, startups["loader"])

        def all_five() -> float:
            return speed(lambda data: ours(data, five, folder / "out5"), folder, [])

        sides = {"lehr predict": single, f"DataLoader, {cores()} workers": loop}
        compare("prediction with one network", "images/s", sides, rounds, "at least 1.0 (higher is better)")
        for name, seconds in startups.items():
            print(f"start-up, {name}: {min(seconds):.1f} to {max(seconds):.1f} s")
        pair = {f"{MEMBERS} members, one pass": all_five, "one network": single}
        ratio = compare("five members against one", "images/s", pair, 1, "above 0.2, one fifth (higher is better)")
        print(
            f"one pass with {MEMBERS} members takes {1 / ratio:.2f} times as long as one network, not {MEMBERS} times;"
        )
        print(f"decoding once instead of {MEMBERS} times: {decoding(folder / 'many.parquet'):.1f} s on one core")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(cifar.needed()), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
