"""The run folder as one object."""

from __future__ import annotations

import logging
import math
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import pytest
import yaml

import lehr.runs
from lehr.errors import RunError
from lehr.runs import (
    FORMAT,
    BestValue,
    DataFacts,
    Environment,
    Failure,
    Folder,
    GitState,
    Lease,
    Progress,
    Recorder,
    RunFolder,
    RunOutcome,
    TrainingProgress,
    UnreadableImages,
    begin_attempt,
    find_runs,
    steps_per_epoch,
)
from lehr.runs.progress import State

JOB = {
    "kind": "train",
    "optimizer": {"name": "sgd", "lr": 1e-5, "weight_decay": 0.1 + 0.2, "clip": math.inf},
    "data": {"source": "digits", "classes": ["null", "ja", "1e3", "ünï"]},
    "schedule": None,
    "aaa": True,
}


def test_a_job_comes_back_as_it_was_in_its_order(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB, Environment(seed=3))
    document = folder.read("job.yaml").decode()
    assert document.startswith(f"format: {FORMAT}\nkind: train\noptimizer:\n")
    again = RunFolder.open(folder.uri)
    for each in (run, again):
        assert each.job == JOB
        assert list(each.job) == list(JOB)
        assert each.name == "run"
        assert each.environment.seed == 3
        assert each.started == each.environment.started != ""
        assert each.status() == "new"
        assert each.progress() == Progress()
        assert each.steps().num_rows == each.epochs().num_rows == 0
        assert each.events() == []


def test_a_run_is_never_created_twice(local: Folder) -> None:
    RunFolder.create(local, JOB, Environment(seed=1))
    with pytest.raises(RunError, match="there already is a run"):
        RunFolder.create(local, {"kind": "search"}, Environment(seed=2))
    assert RunFolder.open(local).job == JOB
    assert RunFolder.open(local).environment.seed == 1


def test_a_permitted_change_replaces_the_job(local: Folder) -> None:
    run = RunFolder.create(local, JOB)
    run.write_job(JOB | {"aaa": False})
    assert run.job["aaa"] is False
    assert RunFolder.open(local).job == JOB | {"aaa": False}


def test_a_job_that_yaml_cannot_hold_is_one_sentence_and_makes_no_run(local: Folder) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(local, {"model": object()})
    assert not local.exists("job.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is not a run folder: it has no job.yaml"),
        (b"kind: train\n", "has no format"),
        (b"format: one\n", "has no format"),
        (b"format: true\n", "has no format"),
        (b"- 1\n", "has no format"),
        (b"", "has no format"),
        (b"{", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"format: 1\nmodel: !!python/object/apply:os.mkdir [exploded]\n", "is not YAML"),
        (f"format: {FORMAT + 1}\n".encode(), rf"written by a newer lehr \(format {FORMAT + 1}"),
    ],
)
def test_what_is_not_a_run_or_is_of_a_newer_lehr_is_one_sentence(
    local: Folder, content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        local.write("job.yaml", content)
    with pytest.raises(RunError, match=says) as caught:
        RunFolder.open(local)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("status", ["new", "finished", "stopped", "failed"])
def test_the_status_is_what_the_writer_reported_last(local: Folder, status: State) -> None:
    run = RunFolder.create(local, JOB)
    run.write_progress(Progress(status=status, training=TrainingProgress(loss=math.nan)))
    assert run.status() == status
    training = run.progress().training
    assert training is not None
    assert math.isnan(training.loss or 0.0)


RUNNING_WRITER = """
import sys
from lehr.runs import Folder, Lease, Progress, RunFolder
run = RunFolder.open(sys.argv[1])
with Lease.acquire(run.folder):
    run.write_progress(Progress(status="running"))
    print("running", flush=True)
    sys.stdin.readline()
    run.write_progress(Progress(status="finished"))
"""


def test_a_run_is_running_only_while_its_writer_lives(local: Folder, python: Callable[..., Popen[str]]) -> None:
    run = RunFolder.create(local, JOB)
    killed, done = python(RUNNING_WRITER, local.uri), None
    assert killed.stdout is not None
    assert killed.stdout.readline() == "running\n"
    assert run.status() == "running"
    killed.kill()
    killed.wait()
    assert run.status() == "interrupted"

    done = python(RUNNING_WRITER, local.uri)
    assert done.stdout is not None
    assert done.stdout.readline() == "running\n"
    assert run.status() == "running"
    done.communicate("end\n", timeout=30)
    assert run.status() == "finished"


def test_a_stop_request_reaches_the_writer_and_is_cleared(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB)
    assert run.stop_requested() is None
    RunFolder.open(folder.uri).request_stop("enough")
    assert run.stop_requested() == "enough"
    run.clear_stop()
    assert run.stop_requested() is None


def test_the_first_failure_stays_until_it_is_cleared(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB)
    assert run.failure() is None
    run.fail(Failure("the disk is full", "Traceback …", 3))
    run.fail(Failure("a later one"))
    assert RunFolder.open(folder.uri).failure() == Failure("the disk is full", "Traceback …", 3)
    assert folder.read_json("failure.json") == {
        "sentence": "the disk is full",
        "trace": "Traceback …",
        "exit_code": 3,
        "owner": "",
    }
    run.clear_failure()
    run.clear_failure()
    assert run.failure() is None


def test_a_loss_is_reported_once(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB)
    assert run.take_loss() == ""
    run.note_loss("worker 1 was lost with its machine")
    assert RunFolder.open(folder.uri).take_loss() == "worker 1 was lost with its machine"
    assert run.take_loss() == ""


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"reason": 3}'])
def test_whatever_is_in_stop_json_it_is_a_request_to_stop(folder: Folder, content: bytes) -> None:
    run = RunFolder.create(folder, JOB)
    assert run.stop_requested() is None
    folder.write("stop.json", content)
    assert run.stop_requested() == "stop.json"
    run.clear_stop()
    assert run.stop_requested() is None


@pytest.mark.parametrize("name", ["failure.json", "lost.json"])
def test_a_damaged_note_is_one_sentence(local: Folder, name: str) -> None:
    run = RunFolder.create(local, JOB)
    read = {"failure.json": run.failure, "lost.json": run.take_loss}[name]
    for content in (b"{", b"[]", b"3"):
        local.write(name, content)
        with pytest.raises(RunError, match=f"{name}: is damaged"):
            read()


def test_the_outcome_decides_and_progress_is_only_shown(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB)
    assert run.outcome() is None
    best = BestValue("validation_accuracy", 0.9, epoch=3, step=30)
    run.write_progress(Progress(status="finished", message="all epochs done", best=best, metrics={"test_loss": 0.5}))
    outcome = RunFolder.open(folder.uri).outcome()
    assert outcome is not None
    assert (outcome.status, outcome.message, outcome.best, outcome.metrics) == (
        "finished",
        "all epochs done",
        best,
        {"test_loss": 0.5},
    )
    folder.write_json("progress.json", {"status": "failed"})
    assert run.status() == "finished"
    run.begin()
    assert run.outcome() is None
    assert run.status() == "interrupted"


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'{"status": "unheard of", "metrics": 3, "seconds": []}'])
def test_damaged_progress_reads_as_that_of_a_new_run(local: Folder, content: bytes) -> None:
    run = RunFolder.create(local, JOB)
    local.write("progress.json", content)
    assert run.progress() == Progress()
    assert run.status() == "new"


def test_progress_comes_back_as_it_was_written(folder: Folder) -> None:
    written = Progress(
        status="running",
        best=BestValue("validation_loss", 0.25, epoch=1, step=10),
        metrics={"validation_loss": 0.25, "train_loss": None},
        seconds={"total": 1.5},
        training=TrainingProgress(attempt=2, step=15, total_steps=20, epoch=1.5, epochs=2, loss=0.1),
    )
    RunFolder.create(folder, JOB).write_progress(written)
    assert RunFolder.open(folder.uri).progress() == written
    assert written.share_done == 0.75


def test_steps_per_epoch_come_from_the_newest_attempt(local: Folder) -> None:
    run = RunFolder.create(local, JOB)
    assert steps_per_epoch(run) is None
    begin_attempt(local, workers=1, checkpoint=None, steps_per_epoch=12, total_steps=36)
    assert steps_per_epoch(run) == 12
    begin_attempt(local, workers=2, checkpoint=None, steps_per_epoch=24, total_steps=72)
    assert steps_per_epoch(run) == 24


def test_a_run_of_format_1_has_its_outcome_and_its_steps_in_progress_json(local: Folder) -> None:
    local.write("job.yaml", b"format: 1\nkind: train\n")
    run = RunFolder.open(local)
    local.write_json(
        "progress.json", {"status": "finished", "message": "done", "step": 20, "total_steps": 20, "epochs": 4}
    )
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.status, outcome.message) == ("finished", "done")
    assert steps_per_epoch(run) == 5
    run.begin()
    assert run.outcome() is None
    assert run.status() == "interrupted"
    run.write_progress(Progress(status="stopped"))
    assert isinstance(run.outcome(), RunOutcome)


def test_a_run_of_format_2_does_not_decide_by_progress_json(local: Folder) -> None:
    run = RunFolder.create(local, JOB)
    local.write_json("progress.json", {"status": "finished", "total_steps": 20, "epochs": 4})
    assert run.outcome() is None
    assert run.status() == "interrupted"
    assert steps_per_epoch(run) is None


def test_what_is_known_of_the_data_joins_the_environment(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB, Environment(started="2030-01-02", seed=1))
    assert "data" not in folder.read_json("environment.json")
    facts = DataFacts(rows={"train": 9}, classes=2, shape=(8, 8, 1), unreadable=UnreadableImages(1, ("a.jpg",)))
    run.write_environment(replace(run.environment, data=facts))
    assert RunFolder.open(folder.uri).environment == Environment(started="2030-01-02", seed=1, data=facts)
    assert folder.read_json("environment.json")["data"] == {
        "rows": {"train": 9},
        "classes": 2,
        "shape": [8, 8, 1],
        "unreadable": {"count": 1, "names": ["a.jpg"]},
    }


@pytest.mark.parametrize("content", [b"{", b"[]", b"3"])
def test_a_damaged_environment_hides_no_run(tmp_path: Path, content: bytes) -> None:
    RunFolder.create(Folder.at(tmp_path / "a"), JOB)
    (tmp_path / "a" / "environment.json").write_bytes(content)
    assert [run.name for run in find_runs(tmp_path)] == ["a"]
    assert RunFolder.open(tmp_path / "a").environment == Environment()


def test_children_are_runs_themselves(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB)
    for number in (10, 2):
        RunFolder.create(folder.child("trials", f"{number:04d}"), JOB | {"number": number})
    folder.write("trials/notes.txt", b"")
    folder.write("trials/half/model/model.json", b"{}")
    assert [(child.name, child.job["number"]) for child in run.children("trials")] == [("0002", 2), ("0010", 10)]
    assert run.children("members") == []
    assert RunFolder.open(folder.child("trials/0002")).job["number"] == 2


def test_runs_are_found_oldest_first(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    for name, started in (("b", "2030-01-02"), ("c", "2030-01-01"), ("a", "2030-01-02")):
        RunFolder.create(folder.child(name), JOB, Environment(started=started))
    folder.write("no-run/x", b"")
    folder.write("newer/job.yaml", b"format: 99\n")
    with caplog.at_level(logging.WARNING):
        assert [run.name for run in find_runs(folder.uri)] == ["c", "a", "b"]
    assert "newer lehr" in caplog.text
    assert find_runs(folder.child("nowhere")) == []


def test_the_record_is_read_through_the_run(local: Folder) -> None:
    run = RunFolder.create(local, JOB)
    recorder = Recorder(local, begin_attempt(local, workers=1, checkpoint=None))
    recorder.write_steps({"step": [0]})
    recorder.write_epochs({"epoch": [1]})
    recorder.event("note", "hello")
    assert (run.steps().num_rows, run.epochs().num_rows, len(run.events())) == (1, 1, 1)


def test_the_environment_has_versions_hardware_seed_and_commit(tmp_path: Path, local: Folder) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", os.fspath(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert Environment.collect(source=tmp_path).git is None
    git("init", "-q")
    assert Environment.collect(source=tmp_path).git is None, "a repository without a commit"
    (tmp_path / "net.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = Environment.collect(seed=7, source=tmp_path)
    assert clean.git == GitState(commit=git("rev-parse", "HEAD"), dirty=False)
    (tmp_path / "net.py").write_text("2")
    changed = Environment.collect(source=tmp_path).git
    assert changed is not None
    assert changed.dirty

    assert clean.seed == 7
    assert (clean.cpus or 0) >= 1
    assert (clean.memory_bytes or 0) > 2**28
    assert set(clean.versions) == {"python", "lehr", "ray", "torch", "torchvision", "pyarrow", "numpy"}
    assert all(clean.versions.values())
    assert RunFolder.create(local, JOB, clean).environment == clean
    assert RunFolder.open(local).environment == clean


def test_importing_the_package_loads_neither_torch_nor_ray(python: Callable[..., Popen[str]]) -> None:
    script = (
        "import sys, lehr.runs; lehr.runs.Environment.collect(); print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    output, _ = python(script).communicate(timeout=60)
    assert output == "[]\n"


def test_the_specification_ships_with_the_package_and_names_every_column() -> None:
    text = (Path(lehr.runs.__file__).parent / "FORMAT.md").read_text()
    for columns in lehr.runs.COLUMNS.values():
        for name, column in columns.items():
            unit = column.unit + (", timing" if column.timing else "")
            assert f"| `{name}` | {column.type} | {unit} | {column.description} |" in text
    assert f"# The run folder, format {FORMAT}" in text


def test_a_job_with_a_format_of_its_own_keeps_ours(local: Folder) -> None:
    RunFolder.create(local, {"format": 7, "kind": "train"})
    assert yaml.safe_load(local.read("job.yaml")) == {"format": FORMAT, "kind": "train"}
    with Lease.acquire(local):
        assert RunFolder.open(local).status() == "new"
