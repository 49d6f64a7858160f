"""The table of metrics: every row has a value for some kind of job, under a bounded set of labels."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny, train_here

from lehr.monitoring.metrics import LABELS, METRICS, Observation, samples
from lehr.runs import Progress

from .examples import RECIPE, SEARCH, STEPS, TRAINING


def values(progress: Progress) -> dict[str, float]:
    """`name` or `name{label value}` to value."""
    found = {}
    for sample in samples(Observation(progress)):
        (label,) = sample.labels.values() or ("",)
        found[f"{sample.metric.name}{{{label}}}" if label else sample.metric.name] = sample.value
    return found


def test_names_are_unique_and_follow_prometheus_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"lehr_[a-z_]+", metric.name)
        assert metric.label not in LABELS
        assert metric.description
        assert metric.when
        if metric.unit.startswith("s"):
            assert metric.name.endswith(("_seconds", "_step"))


def test_every_metric_has_a_value_in_some_kind_of_job() -> None:
    exported = {
        sample.metric.name
        for progress in (TRAINING, SEARCH, RECIPE)
        for sample in samples(Observation(progress, changed=1010.0))
    }
    assert exported == {metric.name for metric in METRICS}


def test_training_in_figures() -> None:
    found = values(TRAINING)
    expected = {
        "lehr_progress_ratio": 0.25,
        "lehr_restarts": 2,
        "lehr_train_loss": 0.25,
        "lehr_train_accuracy": 0.95,
        "lehr_validation_metric{validation_f1_cat}": 0.8,
        "lehr_not_finite": 0,
        "lehr_part_seconds{input}": 2,
        "lehr_part_seconds{compute}": 14,
        "lehr_best{validation_accuracy}": 0.92,
        "lehr_checkpoint_bytes": 123456,
        "lehr_examples_per_second": 1280,
    }
    assert {name: found[name] for name in expected} == expected
    assert "lehr_part_seconds{total}" not in found


def test_a_search_in_figures() -> None:
    assert values(SEARCH) == {
        "lehr_running": 1,
        "lehr_progress_ratio": 0.25,
        "lehr_best{validation_accuracy}": 0.97,
        "lehr_children{running}": 2,
        "lehr_children{finished}": 1,
        "lehr_children{ended}": 3,
        "lehr_children{failed}": 0,
        "lehr_rung_reached{1}": 6,
        "lehr_rung_reached{2}": 3,
        "lehr_rung_stopped{1}": 3,
        "lehr_rung_stopped{2}": 0,
        "lehr_epochs_spent": 20,
        "lehr_epochs_saved": 44,
    }


def test_a_recipe_in_figures() -> None:
    found = values(RECIPE)
    assert found["lehr_recipe_step{coarse}"] == 1
    assert "lehr_step" not in found


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_by_a_metric_that_is(loss: float) -> None:
    found = values(replace(TRAINING, training=replace(STEPS, loss=loss)))
    assert found["lehr_not_finite"] == 1
    assert "lehr_train_loss" not in found


@pytest.mark.parametrize("told", [{}, {"status": "running"}, {"best": None, "rungs": None, "seconds": None}])
def test_a_job_that_reports_little_is_not_an_error(told: dict[str, Any]) -> None:
    assert values(Progress.from_json(told)) == {"lehr_running": 1}


def test_a_real_run_has_every_metric_of_training(tmp_path: Path) -> None:
    run = train_here(tiny(train__epochs=2), tmp_path / "run", workers=2)
    progress = run.progress()
    assert progress.training
    found = values(progress)
    training = {name for name in values(TRAINING) if "{" not in name}
    assert training - set(found) == {"lehr_gpu_memory_bytes"}
    assert {name for name in found if "part_seconds" in name} == {
        f"lehr_part_seconds{{{part}}}" for part in ("input", "compute", "evaluation", "records", "checkpoints")
    }
    files = [file for file in (tmp_path / "run/checkpoints").glob("*/*") if file.name != "manifest.json"]
    newest = max(file.parent.name for file in files)
    assert found["lehr_checkpoint_bytes"] == sum(f.stat().st_size for f in files if f.parent.name == newest)
    step = progress.training.recent.step_seconds
    assert found["lehr_communication_seconds"] >= 0
    assert step
    assert 0 < step < 5
    norms = run.steps()["gradient_norm"].to_numpy().tolist()
    assert min(norms) <= found["lehr_gradient_norm"] <= max(norms)
