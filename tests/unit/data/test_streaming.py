"""Streamed rows are the rows of the cache: the same ones in every epoch, for any number of workers, from any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import largest_difference, records, tiny, train_here

import lehr.data.streaming as streaming
from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.dataset import UNREADABLE, BatchSampler, DataSubset
from lehr.data.decode import FORMATS
from lehr.data.load import OpenedSources, splits
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import key
from lehr.data.sources import Part
from lehr.data.streaming import StreamedSubset, ThreadDecoder
from lehr.errors import LehrError
from lehr.runs import Folder, RunFolder
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

from .conftest import write_parquet

UNKNOWN = f"no image of a known format: {', '.join(FORMATS)}"


class Counting(ThreadDecoder):
    """Remembers what it was asked to decode."""

    def __init__(self, threads: int = 2) -> None:
        super().__init__(threads)
        self.asked: list[tuple[Part, list[int]]] = []

    def submit(self, part: Part, rows: list[int], wanted: PixelFormat) -> Any:
        self.asked.append((part, rows))
        return super().submit(part, rows, wanted)


def both(path: Path, **data: Any) -> tuple[DataSubset, StreamedSubset, Counting]:
    job = tiny(data={"source": "parquet", "path": str(path), **data})
    opened, decoder = OpenedSources(job), Counting()
    streamed = splits(job, opened.stream(decoder)).train
    assert isinstance(streamed, StreamedSubset)
    return splits(job, opened.decode()).train, streamed, decoder


def test_any_rows_in_any_order_are_those_of_the_cache(parquet_file: Path) -> None:
    cached, streamed, _ = both(parquet_file)
    assert (len(streamed), streamed.shape, streamed.classes) == (len(cached), cached.shape, cached.classes)
    assert torch.equal(streamed.labels, cached.labels)
    order = torch.randperm(len(cached), generator=torch.Generator().manual_seed(0))
    for one, other in zip(streamed.batches(order.split(7)), cached.batches(order.split(7)), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.ids, other.ids)
    assert torch.equal(
        streamed.subset(order[:9]).gather(torch.tensor([8, 0])).inputs, cached.gather(order[[8, 0]]).inputs
    )


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(parquet_file: Path) -> None:
    _, streamed, _ = both(parquet_file)
    orders = [streamed.order(key(0, "order", epoch)) for epoch in (0, 0, 1)]
    assert all(sorted(order.tolist()) == list(range(len(streamed))) for order in orders)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_each_part_is_read_once_in_an_epoch(parquet_file: Path) -> None:
    _, streamed, decoder = both(parquet_file)
    order = streamed.order(key(0, "order", 0))
    assert sum(len(batch.ids) for batch in streamed.batches(order.split(16))) == len(streamed)
    parts = [part for part, _ in decoder.asked]
    assert len(parts) == len(set(parts)) == 10


def test_a_window_is_shuffled_and_larger_windows_shuffle_more(
    parquet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, streamed, _ = both(parquet_file)
    part_of = streamed._part_of(streamed.ids[streamed.order(7)].numpy())
    assert len(streamed._cuts(streamed.ids[streamed.order(7)].numpy())) > 4
    assert (part_of[:-1] != part_of[1:]).sum() > 10  # rows of several parts between each other
    monkeypatch.setattr(streaming, "WINDOWS", 1)
    assert len(streamed._cuts(streamed.ids[streamed.order(7)].numpy())) == 2


@pytest.mark.parametrize("augment", [[], [("flip", {}), ("mixup", {})]], ids=["plain", "mixup"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_are_those_of_one_worker_in_memory_and_can_start_at_any_step(
    parquet_file: Path, workers: int, augment: list[Any]
) -> None:
    cached, streamed, decoder = both(parquet_file)
    epochs = BatchSampler(len(cached), 16, 0, streamed.order)
    whole = list(batches(cached, epochs, Augment(augment, 0), 1))
    for first in (0, 3):
        decoder.asked.clear()
        shares = [list(batches(streamed, epochs, Augment(augment, 0), 1, first, r, workers)) for r in range(workers)]
        for step, expected in enumerate(whole[first:]):
            for rank in range(workers):
                assert torch.equal(shares[rank][step].inputs, expected.inputs[rank::workers])
                assert torch.equal(shares[rank][step].targets, expected.targets[rank::workers])
        if not augment and not first:
            assert sum(len(rows) for _, rows in decoder.asked) == len(cached)  # nothing is decoded twice


def test_no_more_than_two_windows_are_held(parquet_file: Path) -> None:
    """While the first batch is used, what was decoded belongs to the first two windows."""
    _, streamed, decoder = both(parquet_file)
    order = streamed.order(3)
    cuts = streamed._cuts(streamed.ids[order].numpy())
    found = streamed.batches(order.split(4))
    next(found)
    del found  # ends its threads
    assert sum(len(rows) for _, rows in decoder.asked) <= cuts[2]


def test_training_on_streamed_digits_is_training_on_cached_ones_in_the_same_order(tmp_path: Path) -> None:
    job = tiny(train__epochs=2, train__precision="fp64")
    runs = []
    for name in ("cached", "streamed"):
        opened = OpenedSources(job)
        streams = opened.stream(ThreadDecoder(2))
        data = splits(job, streams if name == "streamed" else opened.decode())
        if name == "cached":  # in the order that streaming has
            monkey = splits(job, streams).train.order
            data.train.order = monkey  # type: ignore[method-assign]
        run = RunFolder.create(Folder.at(tmp_path / name), {"kind": "train"})
        train(Plan.make(job, data), run, Group())
        runs.append(run)
    for one, other in zip(records(runs[0]), records(runs[1]), strict=True):
        assert largest_difference(one, other) < 1e-12


def test_an_unreadable_row_counts_nowhere(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    cached, streamed, _ = both(path, skip_unreadable="3%")
    assert (len(cached), len(streamed)) in {(77 - k, 77) for k in range(3)} | {(78 - k, 78) for k in range(3)}
    whole = streamed.stream.rows(torch.arange(97))
    targets = torch.cat([batch.targets for batch in whole.batches(torch.arange(97).split(10))])
    assert (targets == UNREADABLE).nonzero().flatten().tolist() == [3, 50]
    assert sorted(whole.stream.unreadable) == [3, 50]
    job = tiny(data={"source": "parquet", "path": str(path), "skip_unreadable": "3%"})
    plan = Plan.make(job, splits(job, OpenedSources(job).decode()))
    torch.manual_seed(0)
    model = plan.build_model()
    readable = OpenedSources(job).decode()["train"].rows(torch.arange(97))
    metrics = [evaluate(model, rows, plan, Group()) for rows in (whole, readable)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-6)
    mixed = Augment([("mixup", {})], 0)
    shares = torch.cat([b.targets.sum(1) for b in batches(whole, BatchSampler(97, 16, 0, whole.order), mixed, 0)])
    assert ((shares > 1 - 1e-9).sum(), (shares < 1 - 1e-9).sum()) == (93, 4)  # two rows, and those mixed with them


def test_too_many_unreadable_rows_end_the_job(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    job = tiny(data={"source": "parquet", "path": str(path)})
    stream = OpenedSources(job).stream(ThreadDecoder(2))["train"]
    with pytest.raises(LehrError, match=r"of 97 images are unreadable.*row 3 "):
        list(stream.rows(torch.arange(97)).batches([torch.arange(97)]))


def test_what_a_decoder_raises_reaches_the_loop(parquet_file: Path) -> None:
    class Broken(ThreadDecoder):
        def submit(self, part: Part, rows: list[int], wanted: PixelFormat) -> Any:
            raise RuntimeError("the disk is gone")

    job = tiny(data={"source": "parquet", "path": str(parquet_file)})
    rows = splits(job, OpenedSources(job).stream(Broken(1))).train
    with pytest.raises(RuntimeError, match="the disk is gone"):
        rows.gather(torch.tensor([0]))


def test_a_run_notes_what_it_skipped(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    job = tiny(data={"source": "parquet", "path": str(path), "skip_unreadable": "3%"}, train__epochs=2)
    run = RunFolder.create(Folder.at(tmp_path / "run"), {"kind": "train"})
    train(Plan.make(job, splits(job, OpenedSources(job).stream(ThreadDecoder(2)))), run, Group())
    skipped = sorted(event["message"] for event in run.events() if event["kind"] == "unreadable")
    assert skipped == [f"skipped {path} row {row} ({UNKNOWN})" for row in (3, 50)]


def test_a_run_notes_what_each_of_its_workers_skipped(tmp_path: Path) -> None:
    broken = (3, 50, 70, 71)
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=broken)
    data = {"source": "parquet", "path": str(path), "skip_unreadable": "5%", "cache": "stream", "validation": 0.1}
    run = train_here(tiny(data=data, train__epochs=2), tmp_path / "run", workers=2)
    skipped = [event["message"] for event in run.events() if event["kind"] == "unreadable"]
    assert sorted(skipped) == [f"skipped {path} row {row} ({UNKNOWN})" for row in broken]
    training = run.progress().training
    assert training is not None
    assert training.skipped_images == len(broken)
