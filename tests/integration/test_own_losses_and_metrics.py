"""A user's own loss and metrics give the same with any number of workers, and after a resume, on the digits."""

from __future__ import annotations

import importlib.util
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.test_resume import assert_equal, kill_at_write
from tests.support import Died, largest_difference, records, tiny, train_here

from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, to_dict
from lehr.models import build
from lehr.runs import RunFolder, read_model
from lehr.training.setup import Plan
from lehr.trust import give

OWN = "tests.users_code"
OPTIONS: dict[str, Any] = {
    "loss": {"name": f"{OWN}:focal", "gamma": 1.5, "class_weights": "balanced"},
    "metrics": [
        {"name": f"{OWN}:f1_of_each", "better": "higher"},
        f"{OWN}:ErrorRate",
        f"{OWN}:order_of_rows",
        {"name": "top_k_accuracy", "k": 3},
    ],
    "train__metric": "validation_error_rate",
    "train__early_stopping": {"patience": 3, "metric": "validation_f1_of_each_3"},
    "train__epochs": 2,
}


def allow(job: TrainJob, then: Any = None) -> None:
    """In each worker: the user gave this job."""
    give(to_dict(job))
    if then:
        then()


def trained(job: TrainJob, folder: Path, workers: int, accident: Any = None) -> RunFolder:
    return train_here(job, folder, workers, prepare=partial(allow, job, accident))


@pytest.mark.parametrize("loss", ["focal", "mean_focal"])
def test_1_and_2_workers_train_the_same_with_an_own_loss(loss: str, tmp_path: Path) -> None:
    own = {"name": f"{OWN}:{loss}", "gamma": 1.5}
    # 330 rows in parts of 32 and 5 rows: one worker has less of a part than the other.
    job = tiny(**{**OPTIONS, "loss": own}, train__precision="fp64", train__gradient_accumulation=2)
    alone, together = trained(job, tmp_path / "1", 1), trained(job, tmp_path / "2", 2)
    for one, other in zip(records(alone), records(together), strict=True):
        assert largest_difference(one, other) < 1e-9
    assert "validation_f1_of_each_9" in alone.epochs().column_names


def test_killed_and_resumed_equals_never_killed_with_an_own_loss_and_metrics(tmp_path: Path) -> None:
    job = tiny(**OPTIONS)
    whole = trained(job, tmp_path / "whole", 2)
    accident = partial(kill_at_write, "checkpoints/step-0000000006-0001/state.json")
    with pytest.raises(Died) as died:
        trained(job, tmp_path / "killed", 2, accident)
    assert -signal.SIGKILL in died.value.args[0]
    assert_equal(whole, trained(job, tmp_path / "killed", 2))


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
def test_metrics_of_torchmetrics_are_what_it_computes_on_the_whole_split(tmp_path: Path) -> None:
    """With 1, 2 and 3 workers, of which the last has a row less than the others."""
    from lehr.models.vision import torchvision

    torchvision()
    from torchmetrics.classification import MulticlassAUROC, MulticlassCalibrationError, MulticlassF1Score

    job = tiny(
        metrics=[
            {"name": "F1Score", "average": "macro"},
            {"name": "F1Score", "average": "none", "label": "f1_of"},
            {"name": "AUROC", "average": "macro"},
            "CalibrationError",
        ],
        train__epochs=1,
        train__precision="fp64",
        train__metric="validation_calibration_error",
    )
    runs = [trained(job, tmp_path / str(workers), workers) for workers in (1, 2, 3)]
    for run in runs[1:]:
        assert largest_difference(records(runs[0])[1], records(run)[1]) < 1e-9
    plan = Plan.make(job, splits(job, OpenedSources(job).decode()))
    rows = plan.splits.validation
    assert len(rows) % 3
    for run in runs:
        weights, description = read_model(run.folder)
        model = build("small_cnn", 1, 10, {"width": 8}, seed=0).double()
        model.load_state_dict(weights)
        batch = rows.gather(torch.arange(len(rows)))
        with torch.inference_mode():
            outputs = model.eval()(plan.inputs(batch.inputs))
        row = run.epochs().to_pylist()[description["from"]["epoch"] - 1]
        for name, metric in {
            "f1_score": MulticlassF1Score(10, average="macro"),
            "auroc": MulticlassAUROC(10, average="macro"),
            "calibration_error": MulticlassCalibrationError(10),
        }.items():
            assert row[f"validation_{name}"] == pytest.approx(float(metric(outputs, batch.targets)), rel=1e-6), name
        each = MulticlassF1Score(10, average="none")(outputs, batch.targets)
        assert [row[f"validation_f1_of_{c}"] for c in range(10)] == pytest.approx(each.tolist())


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
@pytest.mark.parametrize(
    ("name", "lower"), [("F1Score", False), ("AUROC", False), ("CalibrationError", True), ("HammingDistance", True)]
)
def test_torchmetrics_says_which_values_are_better(name: str, lower: bool) -> None:
    from lehr.training.metrics import complete_metrics

    job = tiny(metrics=[name])
    complete_metrics(job, job.error)
    assert job.lower_is_better(f"validation_{job.metrics[0].recorded_as}") is lower


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("F1score", "did you mean F1Score?"),
        ({"name": "F1Score", "averge": "macro"}, "metrics.0: Unexpected keyword arguments: `averge`"),
        ({"name": "F1Score", "average": "most"}, "Expected argument `average` to be one of"),
        ("ConfusionMatrix", "returns Tensor [10, 10]; allowed: a number, one for each of the 10 classes"),
        ("StatScores", '"StatScores" is not a metric of torchmetrics for one class per image'),
        ("BinaryF1Score", '"BinaryF1Score" is not a metric of torchmetrics for one class per image'),
    ],
)
def test_what_torchmetrics_cannot_measure_is_refused(entry: Any, says: str) -> None:
    from lehr.errors import JobError

    job = tiny(metrics=[entry])
    with pytest.raises(JobError) as refused:
        Plan.make(job, splits(job, OpenedSources(job).decode()))
    assert says in str(refused.value)


def test_without_torchmetrics_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lehr.errors import JobError
    from lehr.training import metrics

    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    job = tiny(metrics=["F1Score"])
    with pytest.raises(JobError, match=r"which is not installed; install it with: pip install .*\[metrics\]'"):
        metrics.complete_metrics(job, job.error)
