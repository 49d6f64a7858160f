"""The outcome of the newest attempt decides how a run ended; nothing else on the disk does."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny, train_here

from lehr.errors import RunDeleted, StorageError
from lehr.job import to_dict
from lehr.kinds import run_job
from lehr.runs import ENDED, BestValue, Folder, Lease, Progress, RunFolder, RunOutcome
from lehr.runs.progress import Ended
from lehr.training.metric_logger import MetricLogger


def made(tmp_path: Path) -> RunFolder:
    return RunFolder.create(Folder.at(tmp_path / "run"), to_dict(tiny()))


@pytest.mark.parametrize("status", ENDED)
def test_a_run_ends_as_its_last_progress_said(status: Ended, tmp_path: Path) -> None:
    run = made(tmp_path)
    best = BestValue("validation_accuracy", 0.5, epoch=2, step=20)
    run.write_progress(Progress(status=status, message="because", best=best, metrics={"test_loss": 1.5}))
    outcome = RunOutcome.read(run.folder, "attempts/0000-outcome.json")
    assert outcome is not None
    assert (outcome.status, outcome.message, outcome.best) == (status, "because", best)
    assert outcome.metrics == {"test_loss": 1.5}
    assert run.status() == status


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": "fini', b'{"status": "running"}', b'{"status": 3}'])
def test_a_damaged_outcome_is_none_so_that_the_run_can_be_resumed(content: bytes, tmp_path: Path) -> None:
    run = made(tmp_path)
    run.write_progress(Progress(status="finished"))
    (tmp_path / "run/attempts/0000-outcome.json").write_bytes(content)
    assert run.outcome() is None
    assert run.status() == "interrupted"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": "runni', b'{"status": 3, "total_steps": "many"}'])
def test_a_damaged_progress_changes_nothing_that_decides(content: bytes, tmp_path: Path) -> None:
    run = made(tmp_path)
    run.write_progress(Progress(status="finished", message="all epochs done"))
    (tmp_path / "run/progress.json").write_bytes(content)
    outcome = run.outcome()
    assert outcome is not None
    assert (run.status(), outcome.message) == ("finished", "all epochs done")


def test_a_resumed_run_is_running_again_whatever_its_last_attempt_said(tmp_path: Path) -> None:
    """comet-ml/issue-tracking#528, InftyAI/alphatrion#183: a failed run that was resumed still showed as failed."""
    run = made(tmp_path)
    run.write_progress(Progress(status="failed", message="no memory"))
    with Lease.acquire(run.folder):
        run.begin()
        assert run.outcome() is None
        assert run.status() == "running"
    assert run.status() == "interrupted"


def test_a_crash_after_a_finished_run_was_extended_is_not_told_as_its_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMAP-ML/LongHorizon-Harness#68: a crashed resume found the report of the attempt before it, and exited with 0."""
    job = tiny(schedule="constant", train__epochs=1, storage=str(tmp_path), name="longer")
    run = run_job(job, debug=True)
    assert run.status() == "finished"

    def dies(*_: object) -> None:
        raise KeyboardInterrupt  # as close to a kill as one process gets: nobody writes how it ended

    monkeypatch.setattr("lehr.training.metric_logger.MetricLogger.epoch", dies)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        run_job(job.model_copy(update={"train": job.train.model_copy(update={"epochs": 3})}), debug=True)
    assert run.outcome() is None
    assert run.status() == "interrupted"


def test_a_run_that_is_deleted_while_it_is_written_ends_with_a_sentence_and_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: "everything is saved", in a folder without a job; or `KeyError: 'epochs_done'`."""
    record = MetricLogger.epoch

    def delete_first(self: MetricLogger, *arguments: Any) -> None:
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        record(self, *arguments)

    monkeypatch.setattr(MetricLogger, "epoch", delete_first)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(RunDeleted, match="was deleted while it was being written"):
        run_job(tiny(storage=str(tmp_path), name="gone"), debug=True)
    # A thread may have been writing the progress when the folder went.
    left = {path.name for path in (tmp_path / "gone").rglob("*") if path.is_file()}
    assert left <= {"progress.json", "log.txt", ".lease.lock"}


def test_whatever_fails_in_a_deleted_run_is_told_as_its_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes the progress may be the first to find the folder gone."""

    def fail(*_: Any) -> None:
        shutil.rmtree(tmp_path / "gone")
        raise StorageError("progress.json: cannot write: No such file or directory")

    monkeypatch.setattr(MetricLogger, "epoch", fail)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(RunDeleted, match="was deleted while it was being written"):
        run_job(tiny(storage=str(tmp_path), name="gone"), debug=True)
    assert not (tmp_path / "gone" / "job.yaml").exists()


def test_a_finished_run_whose_report_could_not_be_written_gets_it_when_it_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, write = tiny(train__epochs=1, storage=str(tmp_path), name="late"), Folder.write

    def fail(self: Folder, name: str, data: bytes) -> None:
        if name == "curves.png":
            raise StorageError("Input/output error")
        write(self, name, data)

    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr(Folder, "write", fail)
    with pytest.raises(StorageError):
        run_job(job, debug=True)
    monkeypatch.setattr(Folder, "write", write)
    assert RunFolder.open(tmp_path / "late").status() == "finished"
    run_job(job, debug=True)
    assert {"curves.png", "report.html", "diagnosis.json"} <= {path.name for path in (tmp_path / "late").iterdir()}


def test_what_a_run_of_plain_processes_leaves_decides_the_same(tmp_path: Path) -> None:
    run = train_here(tiny(train__epochs=1), tmp_path / "plain")
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.status, outcome.best.epoch) == ("finished", 1)
