"""Streamed rows are the rows of the cache: the same ones in every epoch, for any number of workers, from any step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import largest_difference, records, tiny, train_here

import lehr.data.epoch_order as epoch_order
import lehr.data.streaming as streaming
import lehr.data.windows as windows
from lehr.data.augment import Augment
from lehr.data.batches import batches
from lehr.data.dataset import UNREADABLE, DataSubset
from lehr.data.decode import FORMATS
from lehr.data.load import OpenedSources, splits
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import bits, key
from lehr.data.sources import Part
from lehr.data.streaming import StreamedSubset, ThreadDecoder
from lehr.errors import LehrError, TrainingError
from lehr.job import TrainJob
from lehr.runs import Checkpoint, Folder, RunFolder
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.resume import in_recorded_order
from lehr.training.setup import Plan

from .conftest import write_parquet

UNKNOWN = f"no image of a known format: {', '.join(FORMATS)}"


class Counting(ThreadDecoder):
    """Remembers what it was asked to decode."""

    def __init__(self, threads: int = 2) -> None:
        super().__init__(threads)
        self.asked: list[tuple[Part, list[int]]] = []

    def submit(self, part: Part, rows: Sequence[int], wanted: PixelFormat, number: int = 0, takers: int = 1) -> Any:
        self.asked.append((part, list(rows)))
        return super().submit(part, rows, wanted, number, takers)


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
    sampler = streamed.sampler(16, 0, 16)
    orders = [sampler.order(epoch) for epoch in (0, 0, 1)]
    assert all(sorted(order.tolist()) == list(range(len(streamed))) for order in orders)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], replace(sampler, seed=1).order(0))


def test_one_shard_is_the_order_that_runs_had_before_there_were_shards(parquet_file: Path) -> None:
    """In which such a run goes on: parts shuffled by one hash, their windows, the rows of a window by another."""
    _, streamed, _ = both(parquet_file)
    for number in range(3):
        stream = key(0, "order", number)
        part_of = streamed._part_of(streamed.ids.numpy())
        parts, counts = np.unique(part_of, return_counts=True)
        shuffled = np.argsort(bits(stream, torch.from_numpy(parts), draw=1).numpy(), kind="stable")
        before = np.cumsum(counts[shuffled]) - counts[shuffled]
        window_of = np.empty(len(parts), np.int64)
        window_of[shuffled] = before // (len(streamed) // 8)
        windows = window_of[np.searchsorted(parts, part_of)]
        expected = np.lexsort((bits(stream, streamed.ids).numpy(), windows)).tolist()
        assert streamed.sampler(16, 0, 1).order(number).tolist() == expected
        assert streamed.order(stream).tolist() == expected
        assert streamed.some_rows(stream, 20).tolist() == expected[:20]


@pytest.mark.parametrize("mixing", [False, True], ids=["plain", "mixing"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_part_is_read_once_by_all_workers_together(tmp_path: Path, workers: int, mixing: bool) -> None:
    """All but those that lie across the edge of a shard, which are read for both: 8 shards of 10 parts."""
    _, streamed, decoder = both(write_parquet(tmp_path / "set.parquet", range(800)), validation=0.001)
    sampler, augment = streamed.sampler(48, 0, 8), Augment([("mixup", {})] if mixing else [], 0)
    assert sampler.shards == 8
    for rank in range(workers):
        assert sum(len(batch.ids) for batch in batches(streamed, sampler, augment, 0, 0, rank, workers)) > 0
    read = Counter(part for part, _ in decoder.asked)
    assert len(read) == 80
    assert sum(read.values()) <= 80 + 7
    assert sum(len(rows) for _, rows in decoder.asked) == len(streamed)


def test_each_part_is_read_once_to_validate_by_all_workers_together(tmp_path: Path) -> None:
    _, streamed, decoder = both(write_parquet(tmp_path / "set.parquet", range(800)), validation=0.001)
    for workers in (1, 2, 3, 8):
        decoder.asked.clear()
        ids = [torch.cat([batch.ids for batch in streamed.in_order(r, workers, 50)]) for r in range(workers)]
        assert torch.equal(torch.cat(ids), streamed.ids)
        assert len(decoder.asked) <= 80 + workers - 1


def test_a_window_is_shuffled_and_larger_windows_shuffle_more(
    parquet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, streamed, _ = both(parquet_file)
    order = streamed.dealt(7, 16, 1)
    part_of = streamed._part_of(streamed.ids[order.whole()].numpy())
    assert len(order.cuts) > 4
    assert (part_of[:-1] != part_of[1:]).sum() > 10  # rows of several parts between each other
    monkeypatch.setattr(streaming, "WINDOWS", 1)
    assert len(streamed.dealt(7, 16, 1).cuts) == 2


@pytest.mark.parametrize("augment", [[], [("flip", {}), ("mixup", {})]], ids=["plain", "mixup"])
@pytest.mark.parametrize("shards", [1, 2, 8, 12])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8, 13])
def test_batches_are_those_of_one_worker_in_memory_and_can_start_at_any_step(
    parquet_file: Path, workers: int, shards: int, augment: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_order, "PARTS_OF_SHARD", 1)
    cached, streamed, _ = both(parquet_file)
    sampler = streamed.sampler(16, 0, shards)
    assert sampler.shards == {12: 6}.get(shards, shards)  # of 10 parts
    in_memory = replace(sampler, shuffle=lambda key: streamed.dealt(key, 16, sampler.shards).whole(), dealt=None)
    whole = list(batches(cached, in_memory, Augment(augment, 0), 1))
    assert len(whole[-1].ids) not in (0, 16)
    for first in (0, 3):
        shares = [list(batches(streamed, sampler, Augment(augment, 0), 1, first, r, workers)) for r in range(workers)]
        for step, expected in enumerate(whole[first:]):
            rows = sum(len(shares[rank][step].ids) for rank in range(workers))
            assert rows == len(expected.ids)
            for rank in range(workers):
                own = torch.from_numpy(sampler.own(rows, rank, workers))
                assert torch.equal(shares[rank][step].ids, expected.ids[own])
                assert torch.equal(shares[rank][step].inputs, expected.inputs[own])
                assert torch.equal(shares[rank][step].targets, expected.targets[own])


def test_no_more_is_held_than_the_windows_in_use_and_one_ahead(parquet_file: Path) -> None:
    """While the first batch is used, what was decoded belongs to the first windows of both shards, and one more."""
    _, streamed, decoder = both(parquet_file)
    sampler = streamed.sampler(4, 0, 2)
    found = batches(streamed, sampler, Augment([], 0), 3)
    next(found)
    order = sampler.in_shards(3)
    assert order is not None
    first = np.diff(order.cuts)[order.window(order.dealing.starts[:-1])]
    time.sleep(0.1)
    assert sum(len(rows) for _, rows in decoder.asked) <= first.sum() + 2 * np.diff(order.cuts).max()
    del found  # ends its thread


def _whole(dealt: Any, key: int) -> torch.Tensor:
    return dealt(key).whole()


def test_training_on_streamed_digits_is_training_on_cached_ones_in_the_same_order(tmp_path: Path) -> None:
    job = tiny(train__epochs=2, train__precision="fp64")
    runs = []
    for name in ("cached", "streamed"):
        opened = OpenedSources(job)
        streams = opened.stream(ThreadDecoder(2))
        plan = Plan.make(job, splits(job, streams if name == "streamed" else opened.decode()))
        if name == "cached":  # in the order that streaming has
            rows = splits(job, streams).train
            assert isinstance(rows, StreamedSubset)
            sampler = rows.sampler(job.train.batch_size, job.seed, job.data.shards)
            plan = replace(plan, sampler=replace(plan.sampler, shuffle=partial(_whole, sampler.dealt)))
            plan.splits.train.some_rows = rows.some_rows  # type: ignore[method-assign]
        run = RunFolder.create(Folder.at(tmp_path / name), {"kind": "train"})
        train(plan, run, Group())
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
    shares = torch.cat([b.targets.sum(1) for b in batches(whole, whole.sampler(16, 0, 2), mixed, 0)])
    assert ((shares > 1 - 1e-9).sum(), (shares < 1 - 1e-9).sum()) == (93, 4)  # two rows, and those mixed with them


def test_too_many_unreadable_rows_end_the_job(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    job = tiny(data={"source": "parquet", "path": str(path)})
    stream = OpenedSources(job).stream(ThreadDecoder(2))["train"]
    with pytest.raises(LehrError, match=r"of 97 images are unreadable.*row 3 "):
        list(stream.rows(torch.arange(97)).batches([torch.arange(97)]))


def test_what_a_decoder_raises_reaches_the_loop(parquet_file: Path) -> None:
    class Broken(ThreadDecoder):
        def submit(self, part: Part, rows: Sequence[int], wanted: PixelFormat, number: int = 0, takers: int = 1) -> Any:
            raise RuntimeError("the disk is gone")

    job = tiny(data={"source": "parquet", "path": str(parquet_file)})
    rows = splits(job, OpenedSources(job).stream(Broken(1))).train
    assert isinstance(rows, StreamedSubset)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        rows.gather(torch.tensor([0]))
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(batches(rows, rows.sampler(16, 0, 2), Augment([], 0), 0))
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(rows.in_order(0, 1, 16))


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


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_workers_for_whom_no_row_is_left_get_empty_batches(parquet_file: Path, rows: int) -> None:
    stream = OpenedSources(tiny(data={"source": "parquet", "path": str(parquet_file)})).stream(ThreadDecoder(1))
    few = stream["train"].rows(torch.arange(rows) * 5)
    sampler, mixed = few.sampler(16, 0, 16), Augment([("mixup", {})], 0)
    for augment in (Augment([], 0), mixed):
        each = [list(batches(few, sampler, augment, 0, 0, rank, 8)) for rank in range(8)]
        assert {len(found) for found in each} == {sampler.steps}
        assert sorted(row for found in each for batch in found for row in batch.ids.tolist()) == few.ids.tolist()
    evaluated = [list(few.in_order(rank, 8, 4)) for rank in range(8)]
    assert torch.equal(torch.cat([batch.ids for found in evaluated for batch in found]), few.ids)


def test_what_was_trained_on_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the epoch: the windows in use, one for each shard or two where one ends, and few ahead."""
    held: list[int] = []
    at = windows.Ahead.at

    def counted(self: windows.Ahead, step: int) -> None:
        at(self, step)
        held.append(len(self._windows))

    monkeypatch.setattr(windows.Ahead, "at", counted)
    monkeypatch.setattr(streaming, "WINDOWS", 80)  # one part each
    _, streamed, _ = both(write_parquet(tmp_path / "set.parquet", range(800)), validation=0.001)
    assert sum(len(batch.ids) for batch in batches(streamed, streamed.sampler(16, 0, 4), Augment([], 0), 0)) == 330
    assert max(held) <= 4 * 2 + 8
    assert held[-1] <= 4 * 2


# ── whole trainings ─────────────────────────────────────────────────────────────────────────────────────────────────


def hard(path: Path, **more: Any) -> TrainJob:
    """Streamed in eight shards, mixed, accumulated, with batches that neither shards nor workers divide."""
    data = {"source": "parquet", "path": str(path), "cache": "stream", "shards": 8, "validation": 0.1}
    data |= {"limit": None, "augment": ["flip", "mixup"]}
    train = {"epochs": 2, "batch_size": 22, "gradient_accumulation": 3, "precision": "fp64"}
    return tiny(data=data, train={**train, "evaluated_training_rows": 20}, **more)


@pytest.fixture
def many_parts(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "parts.parquet", range(200), group=5)


def test_three_workers_train_as_one_does_on_rows_in_shards(many_parts: Path, tmp_path: Path) -> None:
    runs = [train_here(hard(many_parts), tmp_path / f"of {workers}", workers) for workers in (1, 3)]
    for one, other in zip(*map(records, runs), strict=True):
        assert largest_difference(one, other) < 1e-9


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [3, 9, 13])
def test_killed_at_a_step_and_resumed_is_never_killed(many_parts: Path, tmp_path: Path, step: int) -> None:
    job = hard(many_parts, train__checkpoint__every="1step")

    def plan() -> Plan:
        return Plan.make(job, splits(job, OpenedSources(job).stream(ThreadDecoder(2))))

    def until(now: int) -> float:
        if now == step:
            raise Killed
        return made.learning_rate(now)

    made = plan()
    assert (made.sampler.shards, made.length.steps_per_epoch) == (8, 9)
    runs = [RunFolder.create(Folder.at(tmp_path / name), {"kind": "train"}) for name in ("killed", "whole")]
    with pytest.raises(Killed):
        train(replace(made, learning_rate=until), runs[0], Group())
    train(plan(), runs[0], Group())
    train(plan(), runs[1], Group())
    for one, other in zip(*map(records, runs), strict=True):
        assert largest_difference(one, other) == 0


def test_a_run_goes_on_in_the_order_that_its_checkpoint_notes(many_parts: Path) -> None:
    job = hard(many_parts)
    plan = Plan.make(job, splits(job, OpenedSources(job).stream(ThreadDecoder(1))))
    cached = Plan.make(job, splits(job, OpenedSources(job).decode()))

    def noted(step: int, **state: Any) -> Checkpoint:
        return Checkpoint(step=step, model={}, average=None, optimizer=None, state=state, attempt=1)

    assert in_recorded_order(plan, noted(4)).sampler.shards == 1  # written before there were shards
    assert in_recorded_order(plan, noted(4, shards=4)).sampler.shards == 4
    assert in_recorded_order(plan, noted(9, shards=0)).sampler.shards == 8  # between two epochs any order will do
    assert in_recorded_order(cached, noted(9, shards=8)) is cached
    assert in_recorded_order(cached, noted(4)) is cached
    with pytest.raises(TrainingError, match="were cached, and here they are streamed, in another order; resume it"):
        in_recorded_order(plan, noted(4, shards=0))
    with pytest.raises(TrainingError, match="were streamed, and here they are cached, in another order; resume it"):
        in_recorded_order(cached, noted(4, shards=8))
