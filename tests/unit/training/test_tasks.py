"""A job names its task, and every task trains, resumes and is measured alike by any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import largest_difference, records, tiny, train_here, weights
from tests.unit.training.conftest import job_of, plan_of, synthetic
from torch import Tensor

from lehr.data.dataset import DataSubset, Images, Splits
from lehr.data.labels import Ragged
from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict, job_hash, to_dict
from lehr.models.description import ModelDescription
from lehr.runs import RunFolder, read_model
from lehr.runs.examples import Examples
from lehr.tasks.base import Learned, Task
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.setup import Plan, check_job
from lehr.training.train_step import TrainStep
from lehr.trust import give

OWN = "tests.unit.training.test_tasks"
TASKS = ("multilabel", "regression")


def labelled(kind: str, rows: int = 48) -> Splits:
    """The synthetic bands with other labels: several classes a row, or two numbers."""
    both = synthetic(rows)
    band = np.arange(rows) % 3
    labels = {
        "multilabel": np.stack([band == 0, band != 1, band == 2], 1).astype(np.int8),
        "regression": np.stack([band * 10.0 + 100, 3.0 - band], 1),
    }[kind]
    pixels = both.train._pixels.numpy()
    images = Images(pixels, labels, ("a", "b", "c")[: labels.shape[1]])
    ids = torch.arange(rows)
    return Splits(DataSubset(images, ids[rows // 3 :]), DataSubset(images, ids[: rows // 3]))


def test_a_job_without_a_task_is_the_job_that_it_was() -> None:
    job = from_dict({"kind": "train"})
    assert job.task.name == "classification"  # type: ignore[attr-defined]
    assert job_hash(job) == "d4ac82fd9af0f3df"


@pytest.mark.parametrize(
    ("task", "loss", "metric", "lower"),
    [
        ("classification", "cross_entropy", "validation_accuracy", False),
        ("multilabel", "bce", "validation_map", False),
        ("regression", "huber", "validation_mae", True),
    ],
)
def test_a_task_brings_its_loss_and_the_metric_that_chooses_the_model(
    task: str, loss: str, metric: str, lower: bool
) -> None:
    job = job_of(task=task)
    assert (job.loss.name, job.train.metric, job.lower_is_better(metric)) == (loss, metric, lower)
    again = from_dict(to_dict(job))
    assert to_dict(again) == to_dict(job)
    assert job_of(task=task, train__metric="validation_loss").train.metric == "validation_loss"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "regresion"}, r'task: "regresion" is not a task; did you mean "?regression'),
        ({"task": "regression", "loss": "cross_entropy"}, r'"cross_entropy" is not a loss of regression; allowed'),
        ({"task": "multilabel", "loss.label_smoothing": 0.1}, r"loss.label_smoothing: bce takes no label smoothing"),
        ({"task.name": "regression", "task.scale": 2}, r"task.scale: unknown option"),
        ({"task": "regression", "data.augment": ["mixup"]}, r"mixup mixes two images .* no one class; remove it"),
        ({"task": "regression", "metrics": ["f1"]}, r'"f1" is not a metric of regression; allowed: a class of torchm'),
        ({"task": "regression", "train.metric": "validation_accuracy"}, r"is not recorded; allowed: train_loss, "),
        (
            {"data": {"source": "digits", "labels": "age"}},
            r"the source digits has no columns; allowed with: auto, parquet",
        ),
        ({"task": "regression", "data.per_class": 3}, r"data.per_class: needs one class a row.*type data.limit=100"),
        ({"task": "multilabel", "data.sampling": "balanced"}, r"data.sampling: needs one class a row"),
        ({"task": f"{OWN}:labelled"}, r"is no task; allowed: a subclass of lehr.tasks.base.Task"),
        ({"task": f"{OWN}:Counts", "loss": "focal"}, r"loss.name: has no effect with task: .*; leave the section loss"),
    ],
)
def test_what_a_task_cannot_have_is_refused_with_what_to_type(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        planned(changes)


def planned(changes: dict[str, Any]) -> Plan:
    job = from_dict({"kind": "train", "data": {"source": "digits"}}, changes)
    assert isinstance(job, TrainJob)
    give(to_dict(job))
    check_job(job)
    return Plan.make(job, splits(job, OpenedSources(job).decode()))


@pytest.mark.parametrize("task", TASKS)
def test_two_workers_measure_and_keep_what_one_does(task: str, tmp_path: Path) -> None:
    job = tiny(task=task, train__precision="fp64", train__epochs=2, data__limit=120)
    one = train_here(job, tmp_path / "one")
    two = train_here(job, tmp_path / "two", workers=2)
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert largest_difference(mine, theirs) < 1e-9
    first, second = (Examples.read(run.folder) for run in (one, two))
    assert first is not None
    assert second is not None
    assert np.allclose(first.values, second.values, atol=1e-6)
    assert [each.row for each in first.shown] == [each.row for each in second.shown]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(task: str, tmp_path: Path) -> None:
    from lehr.runs import Folder
    from lehr.training.loop import train

    def run(name: str, stop_after: int | None) -> RunFolder:
        plan = plan_of(labelled(task), task=task, train__epochs=3)
        folder = Folder.at(tmp_path / name)
        made = RunFolder.open(folder) if folder.exists("job.yaml") else RunFolder.create(folder, to_dict(plan.job))
        asked = iter(range(100))
        train(plan, made, Group(), lambda: "enough" if stop_after is not None and next(asked) >= stop_after else None)
        return RunFolder.open(folder)

    whole = run("whole", None)
    assert run("parts", 1).status() == "stopped"
    parts = run("parts", None)
    assert records(whole) == records(parts)
    assert all(torch.equal(value, weights(parts)[name]) for name, value in weights(whole).items())
    assert read_model(whole.folder)[1]["learned"] == read_model(parts.folder)[1]["learned"]


def test_the_thresholds_of_the_kept_model_are_those_of_its_validation_rows(tmp_path: Path, train_tiny: Any) -> None:
    run = train_tiny(labelled("multilabel"), task="multilabel", train__epochs=4)
    description = ModelDescription.from_json(read_model(run.folder)[1])
    examples = Examples.read(run.folder)
    assert examples is not None
    from lehr.tasks.multilabel import best_thresholds

    wanted = best_thresholds(np.asarray(examples.values, np.float32), np.asarray(examples.labels))
    assert description.learned["thresholds"] == wanted.tolist()
    assert description.task == "multilabel"


# ── a task of one's own, whose labels are as many as there are in each image ────────────────────────────────────────


class Counts(Task[Tensor]):
    """How many boxes an image has: the labels are the boxes."""

    metric = "wrong_error"

    @classmethod
    def fit(cls, learned: Learned, *, most: int = 9) -> Counts:  # type: ignore[override]
        task = cls()
        task.names, task.most = learned.names, most  # type: ignore[attr-defined]
        return task

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "wrong_error")

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return (outputs[:, 0] - targets.lengths.to(outputs.dtype)).square().sum()

    def sums(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        wrong = (outputs[:, 0] - targets.lengths).abs()
        return {"loss": self.loss(outputs, targets), "wrong": wrong.sum()}

    def metrics(self, sums: Any, rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows, "wrong_error": sums["wrong"] / rows}


def boxed() -> Splits:
    """The synthetic bands, each with as many boxes as its class says, and one that has none."""
    both = synthetic()
    counts = np.arange(48) % 3
    labels = Ragged.of(np.zeros((int(counts.sum()), 5)), counts)
    images, ids = Images(both.train._pixels.numpy(), labels, ("box", "other")), torch.arange(48)
    return Splits(DataSubset(images, ids[16:]), DataSubset(images, ids[:16]))


def test_a_task_of_ones_own_trains_on_labels_of_different_lengths(train_tiny: Any) -> None:
    run = train_tiny(boxed(), task=f"{OWN}:Counts", train__epochs=6, optimizer="adam", optimizer__lr=0.01)
    errors = run.epochs()["validation_wrong_error"].to_pylist()
    assert errors[-1] < 0.8 * errors[0]
    assert run.progress().best.metric == "validation_wrong_error"
    assert run.progress().best.value == min(errors)  # a name that ends with error is minimised
    assert read_model(run.folder)[1]["task"] == f"{OWN}:Counts"


def test_parts_of_a_batch_of_such_labels_add_up_to_the_whole() -> None:
    found = []
    for parts in (1, 3):
        plan = plan_of(
            boxed(),
            task=f"{OWN}:Counts",
            train__gradient_accumulation=parts,
            train__precision="fp64",
            model__norm="none",
        )
        model = plan.build_model()
        step = TrainStep(plan, model, Group())
        step(plan.splits.train.gather(torch.arange(8)), 8, 0)
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
        assert evaluate(model, plan.splits.validation, plan, Group())["wrong_error"] > 0
    assert torch.allclose(found[0], found[1], atol=1e-12)
