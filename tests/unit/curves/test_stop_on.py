"""`train.stop_on` ends hopeless runs early and only those; after a resume it decides the same."""

from __future__ import annotations

from pathlib import Path

from tests.support import tiny, train_here

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.runs import RunFolder

HOPELESS = {"optimizer__lr": 10.0, "model__norm": "batch", "schedule": {"name": "constant"}, "train__epochs": 10}


def epochs_done(run: RunFolder) -> int:
    training = run.progress().training
    assert training
    return training.epochs_done


def test_a_far_too_high_learning_rate_ends_the_run_early(tmp_path: Path) -> None:
    run = train_here(tiny(**HOPELESS, train__stop_on=["diverged"]), tmp_path / "run")
    outcome = run.outcome()
    assert outcome
    assert outcome.status == "finished"
    assert epochs_done(run) < 10
    assert "learning rate too high" in outcome.message
    assert [event["diagnosis"] for event in run.events() if event["kind"] == "early_stop"] == ["diverged"]


def test_without_stop_on_the_run_continues_and_reports_the_diagnosis(tmp_path: Path) -> None:
    run = train_here(tiny(**HOPELESS), tmp_path / "run")
    assert epochs_done(run) == 10
    assert next(event["diagnosis"] for event in run.events() if event["kind"] == "diagnosis") == "diverged"
    assert diagnose(Curves.read(run)).first.name == "diverged"


def test_frozen_weights_end_as_not_learning(tmp_path: Path) -> None:
    job = tiny(optimizer__lr=1e-12, train__epochs=12, train__stop_on=["diverged", "not_learning"])
    run = train_here(job, tmp_path / "run")
    assert epochs_done(run) == 5
    outcome = run.outcome()
    assert outcome
    assert "the model is not learning" in outcome.message


def test_a_healthy_run_is_left_alone(tmp_path: Path) -> None:
    run = train_here(tiny(train__stop_on=["diverged", "not_learning"]), tmp_path / "run")
    assert epochs_done(run) == 4
    assert not [event for event in run.events() if event["kind"] == "diagnosis"]


def test_a_resumed_run_remembers_the_earlier_epochs(tmp_path: Path) -> None:
    frozen = {"optimizer__lr": 1e-12, "schedule": {"name": "constant"}}
    train_here(tiny(**frozen, train__epochs=3), tmp_path / "run")
    run = train_here(tiny(**frozen, train__epochs=12, train__stop_on=["not_learning"]), tmp_path / "run")
    assert run.events()[-2]["diagnosis"] == "not_learning"
    assert epochs_done(run) == 5  # not 3 + 5
