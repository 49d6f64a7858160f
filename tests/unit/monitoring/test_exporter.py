"""The exporter sets gauges from run folders while a job runs, and never affects the job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import tiny

from lehr.job import from_dict, to_dict
from lehr.monitoring import ray_side
from lehr.monitoring.exporter import Exporter, exporting
from lehr.monitoring.metrics import METRICS
from lehr.runs import (
    DataFacts,
    Environment,
    Folder,
    Progress,
    Recorder,
    RunFolder,
    UnreadableImages,
    begin_attempt,
)
from lehr.runs.progress import State

from .examples import RECIPE, SEARCH, STEPS, TRAINING
from .grafana_server import TOKEN, GrafanaServer, serving


class Gauge:
    """Keeps the values that are set, in place of `ray.util.metrics.Gauge`."""

    def __init__(self) -> None:
        self.values: dict[tuple[tuple[str, str], ...], float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert all(isinstance(tag, str) for tag in tags.values())
        self.values[tuple(sorted(tags.items()))] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Gauge]:
    made = {metric.name: Gauge() for metric in METRICS}
    monkeypatch.setattr(ray_side, "gauges", lambda: made)
    monkeypatch.setattr(ray_side, "running", lambda: True)
    return made


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(Folder.at(tmp_path / "digits"), to_dict(tiny()))


def at_step(step: int, total_steps: int = 480, epochs: int = 20) -> Progress:
    return replace(TRAINING, training=replace(STEPS, step=step, total_steps=total_steps, epochs=epochs))


def poll(run: RunFolder, progress: Progress, kind: str = "train", **environment: str) -> Exporter:
    exporter = Exporter(run, kind, environment)
    run.write_progress(progress)
    exporter.poll()
    return exporter


def tags(gauge: Gauge) -> list[dict[str, str]]:
    return [dict(key) for key in gauge.values]


def test_a_run_is_exported_under_its_name_and_kind(run: RunFolder, gauges: dict[str, Gauge]) -> None:
    poll(run, TRAINING)
    assert tags(gauges["lehr_train_loss"]) == [{"run": "digits", "kind": "train", "trial": ""}]
    parts = {labels["part"] for labels in tags(gauges["lehr_part_seconds"])}
    assert parts == {"input", "compute", "evaluation", "records", "checkpoints"}


def test_the_step_of_a_recipe_is_exported(run: RunFolder, gauges: dict[str, Gauge]) -> None:
    poll(run, RECIPE, kind="recipe")
    assert [found["step"] for found in tags(gauges["lehr_recipe_step"])] == ["coarse"]


@pytest.mark.parametrize("progress", [TRAINING, SEARCH, RECIPE])
def test_progress_is_read_back_complete(run: RunFolder, progress: Progress) -> None:
    run.write_progress(progress)
    assert run.progress() == progress


def test_nothing_is_exported_without_ray(
    run: RunFolder, gauges: dict[str, Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_side, "running", lambda: False)
    poll(run, TRAINING)
    assert not any(gauge.values for gauge in gauges.values())


def test_progress_of_an_earlier_attempt_is_not_exported(run: RunFolder, gauges: dict[str, Gauge]) -> None:
    run.write_progress(TRAINING)
    exporter = poll(run, TRAINING)
    assert not gauges["lehr_train_loss"].values
    run.write_progress(replace(TRAINING, updated=1011.0))
    exporter.poll()
    assert gauges["lehr_train_loss"].values


def test_only_new_content_counts_as_progress_and_not_a_clock_that_moves_on(
    run: RunFolder, gauges: dict[str, Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5000.0
    monkeypatch.setattr("time.time", lambda: now)
    exporter = poll(run, TRAINING)
    (first,) = gauges["lehr_progress_timestamp_seconds"].values.values()
    assert first == 5000.0
    now = 5100.0
    moved = replace(TRAINING, updated=5100.0, seconds={"total": 120.0})
    run.write_progress(replace(moved, seconds_left=1.0, seconds_left_least=0.5, seconds_left_most=2.0))
    exporter.poll()
    assert list(gauges["lehr_progress_timestamp_seconds"].values.values()) == [5000.0]
    run.write_progress(at_step(121))
    exporter.poll()
    assert list(gauges["lehr_progress_timestamp_seconds"].values.values()) == [5100.0]


def test_images_that_could_not_be_decoded_count_as_skipped(run: RunFolder, gauges: dict[str, Gauge]) -> None:
    run.write_environment(Environment(data=DataFacts(unreadable=UnreadableImages(5))))
    poll(run, TRAINING)
    assert list(gauges["lehr_skipped_images"].values.values()) == [7]


def trial(run: RunFolder, number: int, status: State) -> None:
    child = RunFolder.create(run.folder.child("trials", f"{number:04d}"), to_dict(tiny()))
    child.write_progress(replace(TRAINING, status=status))


def test_trials_are_exported_only_where_asked_for_and_only_while_they_run(
    run: RunFolder, gauges: dict[str, Gauge]
) -> None:
    trial(run, 1, "running")
    trial(run, 2, "stopped")
    poll(run, SEARCH, "search")
    assert tags(gauges["lehr_train_loss"]) == []
    poll(run, replace(SEARCH, updated=1011.0), "search", LEHR_METRICS_TRIALS="1")
    assert tags(gauges["lehr_train_loss"]) == [{"run": "digits", "kind": "train", "trial": "trials/0001"}]


def test_progress_of_a_trial_counts_as_progress_of_its_search(
    run: RunFolder, gauges: dict[str, Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5000.0
    monkeypatch.setattr("time.time", lambda: now)
    trial(run, 1, "running")
    inner = RunFolder.create(run.folder.child("steps", "2"), to_dict(tiny()))
    inner.write_progress(SEARCH)
    trial(inner, 7, "running")
    exporter = poll(run, SEARCH, "recipe")
    told = gauges["lehr_progress_timestamp_seconds"].values
    assert list(told.values()) == [5000.0]
    for now, place in ((5100.0, run.folder.child("trials", "0001")), (5200.0, inner.folder.child("trials", "0007"))):
        RunFolder(place).write_progress(at_step(int(now)))
        exporter.poll()
        assert list(told.values()) == [now]
    now = 5300.0
    exporter.poll()
    assert list(told.values()) == [5200.0]


def test_the_number_of_trials_at_a_time_is_bounded(
    run: RunFolder, gauges: dict[str, Gauge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehr.monitoring.exporter.MOST_CHILDREN", 2)
    for number in range(4):
        trial(run, number, "running")
    poll(run, SEARCH, "search", LEHR_METRICS_TRIALS="1")
    assert len(gauges["lehr_train_loss"].values) == 2


def test_errors_are_logged_once_and_never_affect_the_job(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, Gauge]:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr(ray_side, "gauges", broken)
    monkeypatch.setattr(ray_side, "running", lambda: True)
    with caplog.at_level(logging.WARNING):
        exporter = poll(run, TRAINING)
        exporter.poll()
    assert [record.message for record in caplog.records] == [
        "metrics: RuntimeError: no metrics today; training is not affected"
    ]


def test_the_last_state_is_exported_before_the_thread_ends(run: RunFolder, gauges: dict[str, Gauge]) -> None:
    with exporting(run, "train"):
        run.write_progress(replace(TRAINING, training=replace(STEPS, loss=float("nan"))))
    assert list(gauges["lehr_not_finite"].values.values()) == [1]


# ── annotations ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[GrafanaServer]:
    with serving() as server:
        monkeypatch.setenv("LEHR_GRAFANA_URL", server.url)
        monkeypatch.setenv("LEHR_GRAFANA_TOKEN", TOKEN)
        yield server


def test_the_events_of_a_run_are_annotated_once_and_in_order(
    run: RunFolder, gauges: dict[str, Gauge], grafana: GrafanaServer
) -> None:
    attempt = begin_attempt(run.folder, workers=1, checkpoint=None)
    recorder = Recorder(run.folder, attempt)
    recorder.event("started", "of an earlier attempt")
    exporter = Exporter(run, "train", {"LEHR_GRAFANA_URL": grafana.url, "LEHR_GRAFANA_TOKEN": TOKEN})
    recorder.event("resumed", "resumed from step 12 with 2 workers")
    recorder.event("diagnosis", "does not deserve a line in every chart")
    recorder.event("early_stop", "has not improved")
    exporter.poll()
    exporter.poll()
    assert [a["text"] for a in grafana.annotations] == [
        "digits: resumed from step 12 with 2 workers",
        "digits: has not improved",
    ]
    assert grafana.annotations[0]["tags"] == ["lehr", "resumed", "run:digits"]
    assert grafana.annotations[0]["time"] > 1.7e12  # milliseconds


def test_each_new_cycle_of_the_learning_rate_is_annotated(
    tmp_path: Path, gauges: dict[str, Gauge], grafana: GrafanaServer
) -> None:
    job = tiny(schedule={"name": "cyclic", "cycles": 4}, train__epochs=8)
    run = RunFolder.create(Folder.at(tmp_path / "cycles"), to_dict(job))
    exporter = Exporter(run, "train", {"LEHR_GRAFANA_URL": grafana.url, "LEHR_GRAFANA_TOKEN": TOKEN})
    begin_attempt(run.folder, workers=1, checkpoint=None, steps_per_epoch=6, total_steps=48)
    for step in (0, 11, 12, 25, 48):
        run.write_progress(at_step(step, total_steps=48, epochs=8))
        exporter.poll()
    assert [a["text"] for a in grafana.annotations] == [
        f"cycles: the learning rate restarts, cycle {number} of 4" for number in (2, 3, 4)
    ]


def test_each_cycle_of_a_snapshot_ensemble_is_annotated_under_the_name_of_the_job(
    tmp_path: Path, gauges: dict[str, Gauge], grafana: GrafanaServer
) -> None:
    base = tiny(schedule={"name": "cyclic", "cycles": 2}, train__epochs=8)
    ensemble = from_dict({"kind": "ensemble", "method": "snapshot", "base": {**to_dict(base)}})
    run = RunFolder.create(Folder.at(tmp_path / "five-in-one"), to_dict(ensemble))
    exporter = Exporter(run, "ensemble", {"LEHR_GRAFANA_URL": grafana.url, "LEHR_GRAFANA_TOKEN": TOKEN})
    exporter.poll()
    trained = RunFolder.create(run.folder.child("trials", "snapshots"), to_dict(base))
    begin_attempt(trained.folder, workers=1, checkpoint=None, steps_per_epoch=6, total_steps=48)
    for step in (0, 20, 30, 48):
        trained.write_progress(at_step(step, total_steps=48, epochs=8))
        exporter.poll()
    assert [a["text"] for a in grafana.annotations] == ["five-in-one: the learning rate restarts, cycle 2 of 2"]


def test_a_grafana_that_refuses_is_logged_once_and_tried_again(
    run: RunFolder, gauges: dict[str, Gauge], grafana: GrafanaServer, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Exporter(run, "train", {"LEHR_GRAFANA_URL": grafana.url, "LEHR_GRAFANA_TOKEN": TOKEN})
    Recorder(run.folder, begin_attempt(run.folder, workers=1, checkpoint=None)).event("started", "starts")
    grafana.fails["POST /api/annotations"] = (500, {"message": "busy"})
    with caplog.at_level(logging.WARNING):
        exporter.poll()
        exporter.poll()
    assert len(caplog.records) == 1
    del grafana.fails["POST /api/annotations"]
    exporter.poll()
    assert len(grafana.annotations) == 1
