"""Every run folder that was ever written stays readable. The golden folders are made by `tests/golden/make.py`."""

from __future__ import annotations

import math
import os
import re
import runpy
from pathlib import Path

import pytest
import torch

from lehr.runs import (
    COLUMNS,
    BestValue,
    DataFacts,
    Failure,
    Folder,
    GitState,
    Gpu,
    Holder,
    RunFolder,
    UnreadableImages,
    all_attempts,
    find_runs,
    load,
    newest_valid,
    read_model,
    saved,
    size_of,
    steps_per_epoch,
    without_timing,
)

GOLDEN = Path(__file__).parents[2] / "golden"
WHOLE = [path.name for path in sorted(GOLDEN.glob("format-*")) if path.name.count("-") == 1]


@pytest.fixture(params=[*WHOLE, "written now"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    if request.param != "written now":
        return RunFolder.open(GOLDEN / request.param)
    runpy.run_path(os.fspath(GOLDEN / "make.py"))["make"](tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_job_environment_and_state(run: RunFolder) -> None:
    assert run.job == {
        "kind": "train",
        "name": "golden",
        "optimizer": {"name": "sgd", "lr": 1e-5},
        "data": {"source": "digits"},
    }
    assert run.started == "2030-01-02T03:04:05.000000+00:00"
    assert (run.environment.seed, run.environment.host, run.environment.versions["lehr"]) == (7, "example", "0.1.0")
    assert run.status() == "finished"
    assert run.stop_requested() == "enough"
    assert [child.job["name"] for child in run.children("trials")] == ["trial"]
    assert run.name in [found.name for found in find_runs(run.folder.local_path.parent)]


def test_how_it_ended(run: RunFolder) -> None:
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.status == "finished"
    if run.format == 1:
        return
    assert outcome.message == "all epochs done"
    assert outcome.best == BestValue("validation_accuracy", 0.75, epoch=2, step=8)
    assert outcome.metrics == {"validation_accuracy": 0.75, "validation_loss": math.inf}
    assert outcome.ended
    progress = run.progress()
    assert (progress.status, progress.best, progress.metrics) == (outcome.status, outcome.best, outcome.metrics)
    assert progress.training is not None
    assert (progress.training.loss, progress.training.epochs_done, progress.seconds) == (0.5, 2, {"total": 1.5})
    assert run.failure() == Failure("the disk was full", "Traceback (most recent call last): …", 1)
    assert run.folder.read_json("lost.json") == {"sentence": "worker 1 was lost with its machine"}


def test_what_is_known_of_machine_and_data(run: RunFolder) -> None:
    if run.format == 1:
        assert run.environment.data is None
        return
    assert run.environment.gpus == (Gpu("a GPU", 2**35),)
    assert run.environment.git == GitState("0123456789abcdef0123456789abcdef01234567", dirty=True)
    assert run.environment.data == DataFacts(
        rows={"train": 100},
        classes=2,
        shape=(8, 8, 1),
        bytes=6400,
        held="cached",
        why="6 kB of decoded images: cached",
        notes=("a note",),
        unreadable=UnreadableImages(1, ("a.jpg",)),
    )


def test_lease(run: RunFolder) -> None:
    holder = Holder.read(run.folder)
    assert holder is not None
    assert (holder.user, holder.host, holder.pid, holder.attempt) == ("somebody", "example", 1234, 2)
    assert str(holder).startswith("somebody on example (process 1234), since 2030-01-02 03:04:05 UTC")


def test_attempts(run: RunFolder) -> None:
    first, second = all_attempts(run.folder)
    assert (first.number, first.workers, first.resumed_from, first.step) == (1, 1, None, 0)
    resumed_from = "step-0000000004" + ("-0001" if run.format >= 3 else "")
    assert (second.number, second.workers, second.resumed_from, second.step) == (2, 2, resumed_from, 4)
    assert second.total_steps == (None if run.format == 1 else 8)
    assert steps_per_epoch(run) == (None if run.format == 1 else 4)


def test_steps(run: RunFolder) -> None:
    steps = run.steps()
    assert steps.column("step").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert str(steps.column("loss").to_pylist()) == str([2.5, 2.0, 2.3, math.nan, 1.0, 0.5])
    assert steps.column("gradient_norm").to_pylist() == [1.5, 1.25, 1.5, math.inf, None, None]
    assert steps.column("update_ratio").to_pylist() == [1e-3, None, 1e-3, None, None, None]
    assert steps.column("examples").to_pylist() == [128, 128, 128, 128, None, None]
    assert steps.column("margin").to_pylist() == [None, None, None, None, None, 3.0]
    assert set(COLUMNS["steps"]) <= set(steps.column_names)
    assert {"seconds", "input_seconds"}.isdisjoint(without_timing(steps).column_names)


def test_epochs(run: RunFolder) -> None:
    epochs = run.epochs()
    assert epochs.column("epoch").to_pylist() == [1, 2]
    assert epochs.column("train_loss").to_pylist() == [0.1 + 0.2, None]
    assert epochs.column("validation_accuracy").to_pylist() == [0.5, 0.75]
    assert epochs.column("note").to_pylist() == [None, "better"]


def test_events(run: RunFolder) -> None:
    assert [(event["attempt"], event["kind"], event["message"]) for event in run.events()] == [
        (1, "started", "starts with 1 worker"),
        (2, "resumed", f"{'goes on' if run.format == 1 else 'resumes'} from step 4 with 2 workers"),
    ]


def test_checkpoints(run: RunFolder) -> None:
    newest, skipped = newest_valid(run.folder)
    assert newest is not None
    assert newest.step == 8
    assert len(skipped) == 1
    assert re.search(r"step-0000000012(-0002)?: is incomplete", skipped[0])
    assert list(saved(run.folder)) == [4, 8]
    for checkpoint in (newest, load(run.folder, saved(run.folder)[4])):
        w = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3 + checkpoint.step
        assert torch.equal(checkpoint.model["w"], w)
        assert torch.equal(checkpoint.model["tied"], w)
        assert torch.equal(checkpoint.model["half"], w.bfloat16())
        assert torch.equal(checkpoint.model["count"], torch.tensor(checkpoint.step))
        assert torch.equal(checkpoint.model["mask"], w > 1)
        assert checkpoint.average is not None
        assert torch.equal(checkpoint.average["w"], w.double() / 7)
        assert checkpoint.optimizer is not None
        assert torch.equal(checkpoint.optimizer["state"][0]["momentum_buffer"], torch.ones(2, 3))
        assert checkpoint.state["best"] == {"metric": "validation_loss", "value": math.inf, "step": None}
        assert checkpoint.state["epoch"] == checkpoint.step / 4
        assert size_of(run.folder, checkpoint.name) > 1000
    assert newest.covered["steps"] == {"1": 2, "2": 1}


def test_model(run: RunFolder) -> None:
    weights, description = read_model(run.folder)
    assert torch.equal(weights["w"], torch.arange(4.0))
    assert description == {"model": {"name": "small_cnn"}, "classes": ["0", "eins"]}


def test_reading_changes_nothing(run: RunFolder) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(Path(run.folder.uri).rglob("*")) if p.is_file()}

    before = contents()
    run.steps(), run.epochs(), run.events(), run.status(), newest_valid(run.folder)
    assert contents() == before
    assert Folder.at(run.folder.uri) == run.folder
