"""Segmentation trains, is measured, resumed and kept alike by any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import largest_difference, records, train_here, weights
from tests.unit.data.mask_sets import write_pairs

from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, RunFolder
from lehr.runs.examples import Examples
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.training.train_step import TrainStep


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 22 rows in batches of 8: of two workers and of three parts each has rows of its own, and the last batch is ragged.
    return write_pairs(tmp_path_factory.mktemp("masks") / "set", {"train": 22, "val": 7})


def segment(path: Path, **overrides: Any) -> TrainJob:
    job = from_dict(
        {
            "kind": "train",
            "data": {"path": str(path), "image_size": 32, "augment": ["flip", "crop"]},
            "task": {"name": "segmentation", "width": 8},
            "model": {"name": "small_cnn", "width": 8},
            "optimizer": {"name": "adam", "lr": 0.003},
            "train": {"epochs": 2, "batch_size": 8, "evaluated_training_rows": 4},
        },
        overrides={name.replace("__", "."): value for name, value in overrides.items()},
    )
    assert isinstance(job, TrainJob)
    return job


def plan_of(job: TrainJob) -> Plan:
    check_job(job)
    return Plan.make(job, splits(job, OpenedSources(job).decode()))


def test_two_workers_measure_and_keep_what_one_does(data: Path, tmp_path: Path) -> None:
    job = segment(data, train__precision="fp64")
    one = train_here(job, tmp_path / "one")
    two = train_here(job, tmp_path / "two", workers=2)
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert largest_difference(mine, theirs) < 1e-9
    first, second = (Examples.read(run.folder) for run in (one, two))
    assert first is not None
    assert second is not None
    assert np.allclose(first.values, second.values)
    assert first.panels == second.panels
    assert [each.caption for each in first.shown] == [each.caption for each in second.shown]
    assert all(value and value > 0 for value in one.epochs()["validation_miou"].to_pylist())


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    def run(name: str, stop_after: int | None) -> RunFolder:
        plan = plan_of(segment(data, train__averaging="ema", loss="cross_entropy_dice"))
        folder = Folder.at(tmp_path / name)
        made = RunFolder.open(folder) if folder.exists("job.yaml") else RunFolder.create(folder, to_dict(plan.job))
        asked = iter(range(100))
        train(plan, made, Group(), lambda: "enough" if stop_after is not None and next(asked) >= stop_after else None)
        return RunFolder.open(folder)

    whole = run("whole", None)
    assert run("parts", 1).status() == "stopped"
    parts = run("parts", None)
    assert str([each.to_pydict() for each in records(whole)]) == str([each.to_pydict() for each in records(parts)])
    assert all(torch.equal(value, weights(parts)[name]) for name, value in weights(whole).items())


def test_streamed_masks_are_those_in_memory_and_need_none_before(data: Path) -> None:
    from lehr.data.streaming import ThreadDecoder

    job = segment(data)
    opened = OpenedSources(job)
    held = splits(job, opened.decode()).train
    streamed = splits(job, opened.stream(ThreadDecoder(1))).train
    order = torch.tensor([5, 0, 21, 7])
    assert torch.equal(held.gather(order).targets, streamed.gather(order).targets)
    assert torch.equal(held.gather(order).inputs, streamed.gather(order).inputs)
    assert streamed.labels.untyped_storage().nbytes() == 1
    one = next(iter(streamed.batches([order[:1]])))
    assert one.targets.shape == (1, 32, 32)


def test_a_streamed_run_trains_as_one_in_memory(data: Path, tmp_path: Path) -> None:
    from lehr.data.streaming import ThreadDecoder

    job = segment(data, train__precision="fp64", data__augment=[])
    found = []
    for name in ("held", "streamed"):
        opened = OpenedSources(job)
        rows = opened.decode() if name == "held" else opened.stream(ThreadDecoder(1))
        plan = Plan.make(job, splits(job, rows))
        found.append(evaluate(plan.build_model(), plan.splits.validation, plan, Group()))
    assert found[0] == pytest.approx(found[1], abs=1e-12, nan_ok=True)


def test_a_streamed_row_that_cannot_be_read_costs_nothing(tmp_path: Path) -> None:
    from lehr.data.streaming import ThreadDecoder

    path = write_pairs(tmp_path / "set", {"train": 6, "val": 2})
    job = segment(path, data__skip_unreadable=0.5)
    (path / "images" / "train" / "002.png").write_bytes(b"broken")
    plan = Plan.make(job, splits(job, OpenedSources(job).stream(ThreadDecoder(1))))
    batch = plan.splits.train.gather(torch.arange(6))
    outputs = torch.randn(6, 11, 32, 32)
    others = torch.tensor([0, 1, 3, 4, 5])
    whole = plan.task.sums(outputs, batch.targets)
    rest = plan.task.sums(outputs[others], batch.targets[others])
    assert torch.equal(whole["confusion"], rest["confusion"])
    assert float(whole["loss"]) == pytest.approx(float(rest["loss"]), rel=1e-6)
    assert list(plan.splits.train.unreadable()) == [2]


def test_parts_of_a_batch_add_up_to_the_whole(data: Path) -> None:
    found = []
    for parts in (1, 3):
        plan = plan_of(segment(data, train__gradient_accumulation=parts, train__precision="fp64", loss="dice"))
        model = plan.build_model()
        TrainStep(plan, model, Group())(plan.splits.train.gather(torch.arange(8)), 8, 0)
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-10)


def test_measures_do_not_depend_on_how_many_rows_are_evaluated_at_once(data: Path) -> None:
    plan = plan_of(segment(data, train__precision="fp64"))
    model = plan.build_model()
    found = [evaluate(model, plan.splits.validation, plan, Group(), batch_size=size) for size in (1, 3, 7)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("weighted", ["balanced", [0.1, *[1.0] * 10]])
def test_classes_of_pixels_have_weights(data: Path, weighted: Any) -> None:
    plan = plan_of(segment(data, loss__class_weights=weighted, train__precision="fp64"))
    batch = plan.splits.train.gather(torch.arange(4))
    outputs = torch.zeros(4, 11, 32, 32, dtype=torch.float64)
    counts = torch.bincount(plan.splits.train.labels[plan.splits.train.labels < 11].long(), minlength=11).double()
    weights_of = 1 / counts.clamp(min=1) if weighted == "balanced" else torch.tensor(weighted, dtype=torch.float64)
    weights_of = weights_of * counts.sum() / (weights_of * counts).sum()
    each = []
    for mask in batch.targets:
        known = mask[mask < 11].long()
        each.append(float(weights_of[known].mean()) * float(torch.tensor(11.0).log()))
    assert float(plan.loss(outputs, batch.targets)) == pytest.approx(sum(each), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.width": 2}, r"task.width: 2 is out of range; allowed: from 4"),
        ({"data.augment": ["rand_augment"]}, r"rand_augment does not say where it moves pixels"),
        ({"data.augment": ["mixup"]}, r"mixup does not say where it moves pixels"),
        ({"loss": "poly"}, r'loss.name: "poly" is not a loss of segmentation; allowed: cross_entropy, focal, dice'),
        ({"loss": {"name": "dice", "smooth": 0}}, r"loss.smooth: 0 is out of range; allowed: above 0"),
        ({"loss": {"name": "dice", "class_weights": "balanced"}}, r"dice takes no class weights; allowed: none"),
        ({"metrics": ["f1"]}, r"metrics: segmentation measures intersection over union by itself"),
        ({"model.preprocessing.crop": 32}, r"crop has no effect on images whose labels are boxes or masks"),
        ({"data.per_class": 3}, r"needs one class a row, and segmentation has none; type data.limit=100"),
        ({"model": {"name": "vit_b_16"}, "data.image_size": 224}, r"allowed: a convolutional network"),
        ({"data.stratify": "labels"}, r"stratify"),
    ],
)
def test_what_segmentation_cannot_have_is_refused_with_what_to_type(
    data: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        plan_of(segment(data, **changes))


def test_a_loss_of_ones_own_gets_classes_and_255(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lehr.trust import Call, allow

    (tmp_path / "own_pixels.py").write_text(
        "import torch\n"
        "def loss(outputs, targets):\n"
        "    known = targets < outputs.shape[1]\n"
        "    right = outputs.log_softmax(1).gather(1, targets.clamp(max=outputs.shape[1] - 1)[:, None])[:, 0]\n"
        "    return -(right * known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    allow([Call("loss", "own_pixels:loss", {})])
    plan, usual = plan_of(segment(data, loss="own_pixels:loss")), plan_of(segment(data))
    batch = plan.splits.train.gather(torch.arange(8))
    outputs = torch.randn(8, 11, 32, 32)
    assert float(plan.loss(outputs, batch.targets)) == pytest.approx(float(usual.loss(outputs, batch.targets)), 1e-5)


def test_images_of_one_size_need_no_other(data: Path) -> None:
    plan = plan_of(segment(data, data__image_size=None))
    assert plan.splits.train.shape == (1, 64, 64)
    assert plan.splits.train.labels.shape == (22, 64, 64)
