"""What Ray decodes is what this process decodes, cached or streamed, and a Ray Dataset is a source like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import tiny

from lehr import trust
from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.load import OpenedSources, splits
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, to_dict

from .conftest import image_of, write_parquet

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

MODULE = """
import numpy as np
import ray

def arrays():
    rows = [{"image": np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8), "label": "ab"[row % 2]}
            for row in range(40)]
    return ray.data.from_items(rows, override_num_blocks=3)

def folder(path):
    return ray.data.read_parquet(path)

def wrong():
    return [1, 2]

def made(path):
    kind = path.split("/")[-1]
    def image(row):
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8)
        return {"first": lambda: pixels.transpose(2, 0, 1), "uint16": lambda: pixels.astype(np.uint16) * 257,
                "float": lambda: (pixels.transpose(2, 0, 1) / 255).astype(np.float32), "lists": lambda: pixels.tolist(),
                "null": lambda: None if row == 3 else pixels.tobytes(), "two": lambda: pixels[..., :2],
                "either": lambda: pixels[:3], "names": lambda: pixels, "mixed": lambda: pixels}[kind]()
    labels = {"null-label": [0, None], "names": ["a", None], "mixed": [0, -1]}.get(kind, [0, 1])
    return ray.data.from_items([{"image": image(row), "label": labels[row % 2]} for row in range(20)])
"""


def test_ray_decodes_what_one_process_decodes(tmp_path: Path) -> None:
    from lehr.data.ray_data import Shared, read_with_ray

    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    opened = OpenedSources(tiny(data={"source": "parquet", "path": str(path), "skip_unreadable": "3%"}))
    here, there = opened.decode()["train"], Shared.put(opened.decode(read_with_ray)["train"]).open()
    assert np.array_equal(here.pixels, there.pixels)
    assert np.array_equal(here.labels, there.labels)
    assert (there.classes, there.unreadable) == (here.classes, (3, 50))


@pytest.mark.parametrize("spare_cpus", [True, False])
def test_ray_streams_what_one_process_streams(parquet_file: Path, spare_cpus: bool) -> None:
    from lehr.data.ray_data import RayDecoder, SharedStream

    job = tiny(data={"source": "parquet", "path": str(parquet_file)})
    stream = OpenedSources(job).stream(ThreadDecoder(1))["train"]
    opened = SharedStream.put(OpenedSources(job).stream(RayDecoder(2, spare_cpus))["train"]).open()
    with pytest.raises(TypeError, match="only a stream that Ray decodes"):
        SharedStream.put(stream)
    order = stream.rows(torch.arange(97)).order(5)
    for one, other in zip(*(s.rows(torch.arange(97)).batches(order.split(16)) for s in (stream, opened)), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def given(source: str, **more: str) -> TrainJob:
    """A job with a data source of its user, who gave it."""
    job = tiny(data={"source": source, **more})
    trust.allow(trust.calls_of(to_dict(job)))
    return job


def test_a_function_that_returns_a_ray_dataset(
    tmp_path: Path, parquet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.data.ray_data import read_with_ray

    (tmp_path / "their_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = OpenedSources(given("their_data:arrays"))
    images = opened.decode(read_with_ray)["train"]
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [0, 1] * 20
    assert all((images.pixels[row] == image_of(row)).all() for row in range(40))
    assert opened.main.name_of(39) == "row 39 of the dataset"
    job = given("their_data:folder", path=str(parquet_file))
    streamed = splits(job, OpenedSources(job).stream(ThreadDecoder(1))).train
    batch = streamed.gather(torch.arange(5))
    assert all((batch.inputs[k].permute(1, 2, 0).numpy() == image_of(int(batch.ids[k]))).all() for k in range(5))
    with pytest.raises(JobError, match=r"their_data:wrong returned rows such as"):
        OpenedSources(given("their_data:wrong"))


@pytest.mark.parametrize("kind", ["first", "uint16", "float"])
def test_arrays_of_a_dataset_are_scaled_by_their_type_with_channels_first_or_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / f"made_{kind}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    images = OpenedSources(given(f"made_{kind}:made", path=kind)).decode()["train"]
    assert all((images.pixels[row] == image_of(row)).all() for row in range(20))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("two", r"shape \[8, 8, 2\] is not an image; allowed: \[height, width\]"),
        ("either", r"an array of shape \[3, 8, 3\] may have its channels first or last"),
        ("lists", r"its values are 64-bit whole numbers with a sign.*type those two, such as data\.pixel_range=\["),
        ("names", r"has rows without a label \(None\)"),
        ("mixed", r"has labels such as -1; allowed: names, or whole numbers from 0"),
    ],
)
def test_a_dataset_that_does_not_fit_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    (tmp_path / f"odd_{kind}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LehrError, match=said):
        OpenedSources(given(f"odd_{kind}:made", path=kind)).decode()


@dataclass(frozen=True)
class Noted:
    """A part that notes in a file when it is read."""

    part: Any
    log: str

    @property
    def rows(self) -> int:
        return int(self.part.rows)

    def labels(self) -> np.ndarray:
        return np.asarray(self.part.labels())

    def read(self, rows: Any = None) -> Any:
        with open(self.log, "a") as file:
            file.write(f"{self.part.row_group}\n")
        return self.part.read(rows)

    def name(self, row: int) -> str:
        return str(self.part.name(row))


@pytest.mark.parametrize("workers", [2, 3])
def test_what_several_workers_of_a_node_need_is_decoded_once(tmp_path: Path, workers: int) -> None:
    import ray

    from lehr.data.ray_data import RayDecoder, SharedStream

    path, log = write_parquet(tmp_path / "set.parquet", range(97)), tmp_path / "read.txt"
    job = tiny(data={"source": "parquet", "path": str(path)})
    stream = OpenedSources(job).stream(ThreadDecoder(1))["train"]
    noted = replace(stream.source, parts=tuple(Noted(part, str(log)) for part in stream.source.parts))
    shared = SharedStream.put(replace(stream, source=noted, decoder=RayDecoder(2, spare_cpus=True)))
    expected = list(epoch_of(stream.rows(torch.arange(97)), 0, 1))
    log.write_text("")

    @ray.remote(num_cpus=0)
    class Worker:
        def epoch(self, rank: int) -> list[Any]:
            return [(batch.ids.numpy(), batch.inputs.numpy()) for batch in epoch_of(of_all(shared), rank, workers)]

    each = [Worker.remote() for _ in range(workers)]  # type: ignore[attr-defined]
    found = ray.get([worker.epoch.remote(rank) for rank, worker in enumerate(each)])
    read = sorted(map(int, log.read_text().split()))
    assert read == sorted(set(read))
    assert len(read) == 10
    for step, whole in enumerate(expected):
        ids = np.concatenate([each[step][0] for each in found])
        pixels = np.concatenate([each[step][1] for each in found])
        assert sorted(ids) == sorted(whole.ids.tolist())
        assert np.array_equal(pixels[np.argsort(ids)], whole.inputs.numpy()[np.argsort(whole.ids.numpy())])


def of_all(shared: Any) -> Any:
    return shared.open().rows(torch.arange(97))


def epoch_of(rows: Any, rank: int, workers: int) -> Any:
    return batches(rows, rows.sampler(16, 0, 1), Augment([], 0), 0, 0, rank, workers)


MANY = """
import numpy as np
import ray

def many(path=""):
    def images(batch):
        pixels = [np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8) for row in batch["id"]]
        return {"image": np.stack(pixels), "label": np.array(["ab"[row % 2] for row in batch["id"]])}
    return ray.data.range(3000, override_num_blocks=11).map_batches(images, batch_size=None)
"""


def test_a_ray_dataset_that_is_too_large_to_hold_is_written_and_has_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many_data.py").write_text(MANY)
    monkeypatch.syspath_prepend(str(tmp_path))
    job = given("many_data:many").model_copy(update={"storage": str(tmp_path / "runs")})
    held = OpenedSources(job)
    assert not (tmp_path / "runs/.rows").exists()
    monkeypatch.setenv("LEHR_MOST_HELD_BYTES", "100000")
    written = OpenedSources(job)
    (told,) = (note for note in written.notes if "are written to" in note)
    assert "many_data:many: 3,000 rows, more than 0.0001 GB" in told
    assert len(list((tmp_path / "runs/.rows").glob("*/*.parquet"))) >= 11  # one for each block
    one, other = (opened.decode()["train"] for opened in (held, written))
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.labels, other.labels)
    assert (one.pixels[2999] == image_of(2999)).all()
    assert one.classes == other.classes == ("a", "b")
    assert written.main.name_of(2999) == held.main.name_of(2999) == "row 2999 of the dataset"
    streams = [splits(job, opened.stream(ThreadDecoder(1))).train for opened in (held, written)]
    assert len(streams[0]) == len(streams[1])
    for stream in streams:
        batch = stream.gather(torch.arange(5))
        assert all((batch.inputs[k].permute(1, 2, 0).numpy() == image_of(int(batch.ids[k]))).all() for k in range(5))


def test_blocks_come_in_the_order_of_the_dataset_whichever_is_made_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = MANY.replace(
        "    def images(batch):", "    def images(batch):\n        import time; time.sleep(0.5 * (batch['id'][0] == 0))"
    )
    (tmp_path / "slow_data.py").write_text(slow)
    monkeypatch.syspath_prepend(str(tmp_path))
    for most in ("100000", "100000000"):
        monkeypatch.setenv("LEHR_MOST_HELD_BYTES", most)
        job = given("slow_data:many").model_copy(update={"storage": str(tmp_path / "runs")})
        images = OpenedSources(job).decode()["train"]
        assert all((images.pixels[row] == image_of(row)).all() for row in range(0, 3000, 100))
