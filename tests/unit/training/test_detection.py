"""Detection trains, is measured, resumed and kept alike by any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import largest_difference, records, train_here, weights
from tests.unit.data.coco import write_coco

from lehr.data.load import OpenedSources, splits
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
    return write_coco(tmp_path_factory.mktemp("boxes") / "set", {"train": 22, "val": 7})


def detect(path: Path, **overrides: Any) -> TrainJob:
    job = from_dict(
        {
            "kind": "train",
            "data": {"source": "annotations", "path": str(path), "augment": ["flip", "crop"]},
            "task": {"name": "detection", "width": 16, "depth": 1},
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
    job = detect(data, train__precision="fp64")
    one = train_here(job, tmp_path / "one")
    two = train_here(job, tmp_path / "two", workers=2)
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert largest_difference(mine, theirs) < 1e-9
    first, second = (Examples.read(run.folder) for run in (one, two))
    assert first is not None
    assert second is not None
    assert np.allclose(first.values, second.values, atol=1e-5)
    assert [each.caption for each in first.shown] == [each.caption for each in second.shown]
    assert any(value and value > 0 for value in one.epochs()["validation_map_50"].to_pylist())


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    def run(name: str, stop_after: int | None) -> RunFolder:
        plan = plan_of(detect(data, train__averaging="ema"))
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


def test_streamed_boxes_are_those_in_memory(data: Path) -> None:
    from lehr.data.streaming import ThreadDecoder

    job = detect(data, data__image_size=48)
    opened = OpenedSources(job)
    held = splits(job, opened.decode()).train
    streamed = splits(job, opened.stream(ThreadDecoder(1))).train
    assert torch.equal(held.gather(torch.arange(5)).targets.values, streamed.gather(torch.arange(5)).targets.values)
    assert torch.equal(held.gather(torch.arange(5)).inputs, streamed.gather(torch.arange(5)).inputs)


def test_parts_of_a_batch_add_up_to_the_whole(data: Path) -> None:
    found = []
    for parts in (1, 3):
        plan = plan_of(detect(data, train__gradient_accumulation=parts, train__precision="fp64"))
        model = plan.build_model()
        TrainStep(plan, model, Group())(plan.splits.train.gather(torch.arange(8)), 8, 0)
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.finest": 16}, r"task.finest|finest: its feature maps have the strides 1, 2, 4, and none has 16"),
        ({"task.width": 4}, r"task.width: 4 is out of range; allowed: from 8"),
        ({"data.augment": ["rand_augment"]}, r"rand_augment does not say where it moves pixels"),
        ({"data.augment": ["mixup"]}, r"mixup does not say where it moves pixels"),
        ({"loss": "focal"}, r"loss.name: has no effect with task: detection"),
        ({"metrics": ["f1"]}, r"metrics: detection measures average precision"),
        ({"model.preprocessing.crop": 32}, r"crop has no effect on images whose labels are boxes"),
        ({"data.per_class": 3}, r"needs one class a row, and detection has none; type data.limit=100"),
        (
            {"data.source": "digits", "data.path": None},
            r"its rows have no boxes, which detection learns; allowed: COCO JSON",
        ),
        (
            {"model": {"name": "vit_b_16"}, "data.image_size": 224},
            r"most of its layers come after conv_proj.*allowed: a convolutional network",
        ),
    ],
)
def test_what_detection_cannot_have_is_refused_with_what_to_type(
    data: Path, changes: dict[str, Any], said: str
) -> None:
    from lehr.errors import JobError

    with pytest.raises(JobError, match=said):
        plan_of(detect(data, **changes))


def test_a_classifiers_weights_start_the_backbone_and_a_detectors_all_but_the_head(
    data: Path, train_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from lehr.models import start_from

    job = detect(data)
    detector = plan_of(job).build_model()
    classifier = __import__("lehr.models", fromlist=["build"]).build("small_cnn", 1, 3, {"width": 8}, 5)
    own = {name: value.clone() for name, value in detector.state_dict().items()}
    assert not start_from(detector, classifier.state_dict(), [str(k) for k in range(10)], ["a", "b", "c"])
    now = detector.state_dict()
    for name, value in now.items():
        before = own[name] if name.startswith("head.") else classifier.state_dict()[name.removeprefix("backbone.")]
        assert torch.equal(value, before), name
    other = plan_of(detect(data, seed=3)).build_model()
    assert start_from(other, now, [str(k) for k in range(10)], [str(k) for k in range(10)])
    assert all(torch.equal(value, now[name]) for name, value in other.state_dict().items())
    with pytest.raises(ValueError, match="of the network is not in the weights"):
        start_from(other, {"stem.weight": torch.zeros(3)}, ["a"], ["b"])


def test_measures_do_not_depend_on_how_many_rows_are_evaluated_at_once(data: Path) -> None:
    plan = plan_of(detect(data, train__precision="fp64"))
    model = plan.build_model()
    found = [evaluate(model, plan.splits.validation, plan, Group(), batch_size=size) for size in (1, 3, 7)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-9, nan_ok=True)


def test_a_batch_without_any_box_is_learned_from() -> None:
    from lehr.data.targets import RaggedTensor

    plan_of_canvas = Plan.make(canvas := detect_canvas(), splits(canvas, OpenedSources(canvas).decode()))
    model = plan_of_canvas.build_model()
    batch = plan_of_canvas.splits.train.gather(torch.arange(4))
    empty = RaggedTensor.from_lengths(batch.targets.values[:0], torch.zeros(4, dtype=torch.int64), batch.targets.known)
    loss = plan_of_canvas.loss(model(*plan_of_canvas.arguments(batch)), empty)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


def detect_canvas() -> TrainJob:
    job = from_dict({"kind": "train", "data": {"source": "digits_canvas"}, "task": "detection", "model": "small_cnn"})
    assert isinstance(job, TrainJob)
    return job
