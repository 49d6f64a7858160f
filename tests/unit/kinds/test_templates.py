"""The templates of ensembles and predictions run, shortened to seconds by overrides that a user could type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import lehr
from lehr.job import EnsembleJob
from lehr.kinds.ensemble_members import plan_ensemble

JOBS = Path(__file__).parents[3] / "jobs"
TINY = {"base.model": {"name": "small_cnn", "width": 8}, "base.data.limit": 200, "base.train.batch_size": 64}


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


def test_the_template_of_a_snapshot_ensemble() -> None:
    digits: dict[str, Any] = {
        "base.data.source": "digits",
        "base.data.path": None,
        "base.data.augment": [],
        "base.train.precision": "fp32",
    }
    run = lehr.run(
        lehr.load(JOBS / "snapshot-ensemble.yaml", {**digits, **TINY, "base.train.epochs": 5, "storage": "runs"}),
        debug=True,
    )
    assert run.status == "finished"
    assert len(run.folder.children("members")) == 5


def test_the_template_as_it_is_has_the_schedule_of_the_paper() -> None:
    """200 epochs, 5 cycles, restarts at 0.2."""
    job = lehr.load(JOBS / "snapshot-ensemble.yaml")
    assert isinstance(job, EnsembleJob)
    snapshots, single = plan_ensemble(job).trials
    assert (snapshots.job.schedule.name, snapshots.job.schedule.cycles) == ("cyclic", 5)  # type: ignore[union-attr]
    assert (snapshots.job.optimizer.lr, snapshots.job.train.epochs) == (0.2, 200)
    assert (single.job.schedule.name, single.job.optimizer.lr, single.job.train.epochs) == ("cosine", 0.1, 200)


def test_the_templates_of_an_independent_ensemble_and_of_a_prediction_with_it() -> None:
    changes = {**TINY, "members": 2, "base.train.epochs": 2, "storage": "runs", "compare": False}
    run = lehr.run(lehr.load(JOBS / "independent-ensemble.yaml", changes), debug=True)
    assert len(run.folder.children("members")) == 2
    job = lehr.load(JOBS / "predict.yaml", {"run": f"run:{run.name}", "members": True, "storage": "runs"})
    done = lehr.run(job, debug=True)
    table = pq.read_table(done.record.folder.child("predictions").local_path)
    assert table["id"].to_pylist() == list(range(1797))
    assert [name for name in table.column_names if name.startswith("member")] == ["member 01", "member 02"]


def test_the_template_of_fast_training() -> None:
    """With its precision, averaging and augmentation; without compilation, which takes a compiler and half a minute."""
    digits = {"data.source": "digits", "data.path": None, "data.limit": 128, "data.validation": "20%"}
    small = {"model.width": 4, "train.epochs": 2, "train.batch_size": 32, "train.compile": False, "storage": "runs"}
    run = lehr.run(lehr.load(JOBS / "cifar10-fast.yaml", {**digits, **small}), debug=True)
    assert run.status == "finished"
    assert "averaged_validation_accuracy" in run.metrics()


def test_the_template_of_a_segmentation(tmp_path: Path) -> None:
    from tests.unit.data.mask_sets import write_pairs

    data = write_pairs(tmp_path / "set", {"train": 20, "val": 4})
    changes: dict[str, Any] = {"data.source": "auto", "data.path": str(data), "train.epochs": 2, "storage": "runs"}
    run = lehr.run(lehr.load(JOBS / "segmentation.yaml", {**changes, "workers.count": 1}), debug=True)
    assert run.best["metric"] == "validation_miou"
    (mask,) = run.predict([data / "images" / "val" / "000.png"])
    assert mask.shape == (64, 64)


def test_the_template_of_a_detection(tmp_path: Path) -> None:
    from tests.unit.data.coco import write_coco

    data = write_coco(tmp_path / "set", {"train": 20, "val": 4})
    changes: dict[str, Any] = {
        "data.source": "annotations",
        "data.path": str(data),
        "train.epochs": 3,
        "storage": "runs",
    }
    run = lehr.run(lehr.load(JOBS / "detection.yaml", {**changes, "workers.count": 1}), debug=True)
    assert run.best["metric"] == "validation_map"
    assert run.predict([data / "images" / "val000.png"]).shape == (1, 100, 6)


def test_the_template_of_captioning(tmp_path: Path) -> None:
    from tests.unit.data.coco import write_captions

    data = write_captions(tmp_path / "set", {"train": 20, "val": 4})
    changes: dict[str, Any] = {"data.source": "auto", "data.path": str(data), "train.epochs": 2, "storage": "runs"}
    tiny = {"task.width": 16, "task.heads": 2, "task.depth": 1, "task.longest": 6, "workers.count": 1}
    run = lehr.run(lehr.load(JOBS / "captioning.yaml", {**changes, **tiny}), debug=True)
    assert run.best["metric"] == "validation_cider"
    assert run.predict([data / "images" / "val000.png"]).shape == (1, 7)
